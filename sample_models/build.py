"""Build the sample models: ``python sample_models/build.py`` writes them all, the same bytes every time.

The tiny ones need onnx and numpy; the trained one (``digits``) needs torch and scikit-learn as well and is
built with ``--digits`` only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

HERE = Path(__file__).parent
node = helper.make_node

SAMPLES: dict[str, Callable[[], ModelProto]] = {}


def sample(function: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
    """Register a builder under its function's name."""
    SAMPLES[function.__name__] = function
    return function


def weights(seed: int, *shape: int, dtype: str = "float32") -> NDArray[np.generic]:
    """Small random weights."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(dtype)


def batch_norm(prefix: str, channels: int, seed: int = 7, dtype: str = "float32") -> dict[str, NDArray[np.generic]]:
    """Scale, bias, mean and var as a trained layer might hold them, under ``<prefix>_…``; some scales negative."""
    rng = np.random.default_rng(seed)
    return {
        f"{prefix}_scale": (rng.uniform(0.5, 1.5, channels) * rng.choice([1, 1, 1, -1], channels)).astype(dtype),
        f"{prefix}_bias": rng.normal(0, 0.5, channels).astype(dtype),
        f"{prefix}_mean": rng.normal(0, 0.5, channels).astype(dtype),
        f"{prefix}_var": rng.uniform(0.5, 2.0, channels).astype(dtype),
    }


def bn_node(source: str, target: str, prefix: str, **attributes: object) -> NodeProto:
    """A BatchNormalization with the parameters of :func:`batch_norm`."""
    names = [source, *(f"{prefix}_{part}" for part in ("scale", "bias", "mean", "var"))]
    return node("BatchNormalization", names, [target], **{"name": f"{prefix}_bn", **attributes})


def tensor(name: str, shape: Sequence[int | str | None], dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def make(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: dict[str, NDArray[np.generic]],
    *,
    opset: int = 17,
    ir_version: int = 8,
    functions: Sequence[object] = (),
) -> ModelProto:
    """A model out of its parts."""
    held = [numpy_helper.from_array(np.asarray(data), name) for name, data in initializers.items()]
    graph = helper.make_graph(list(nodes), "sample", list(inputs), list(outputs), held)
    opsets = [helper.make_opsetid("", opset)]
    if functions:
        opsets.append(helper.make_opsetid("local", 1))
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=ir_version, producer_name="bnfold-samples", functions=list(functions)
    )
    inferred = shape_inference.infer_shapes(model)
    for declared, found in zip(model.graph.output, inferred.graph.output, strict=True):
        known = found.type.tensor_type.HasField("shape")
        declared.CopyFrom(found if known else tensor(declared.name, [None] * 4, declared.type.tensor_type.elem_type))
    return model


IMAGE = tensor("x", ["N", 3, 8, 8])
ANY = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)


@sample
def conv() -> ModelProto:
    """The everyday case: a padded convolution without bias, BatchNorm, ReLU."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        bn_node("c", "b", "bn"),
        node("Relu", ["b"], ["y"], name="relu"),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@sample
def conv_transpose_grouped() -> ModelProto:
    """Behind a grouped ConvTranspose, whose weights are laid out the other way round."""
    nodes = [
        node("ConvTranspose", ["x", "w", "bias"], ["c"], name="up", group=2, strides=[2, 2], output_padding=[1, 1]),
        bn_node("c", "y", "bn"),
    ]
    held = {"w": weights(2, 4, 3, 3, 3), "bias": weights(3, 6), **batch_norm("bn", 6)}
    return make(nodes, [tensor("x", ["N", 4, 8, 8])], [ANY], held)


@sample
def gemm_beta() -> ModelProto:
    """Behind a Gemm with alpha, beta and a transposed weight."""
    nodes = [
        node("Gemm", ["x", "w", "c"], ["g"], name="dense", alpha=0.5, beta=2.0, transB=1),
        bn_node("g", "y", "bn"),
    ]
    held = {"w": weights(4, 5, 6), "c": weights(5, 5), **batch_norm("bn", 5)}
    return make(nodes, [tensor("x", ["N", 6])], [ANY], held)


@sample
def matmul_add() -> ModelProto:
    """A dense layer as Keras exports it: MatMul, Add, and the BatchNorm written out as Mul and Add."""
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="dense"),
        node("Add", ["m", "bias"], ["a"], name="bias_add"),
        node("Mul", ["a", "gain"], ["s"], name="batchnorm_mul"),
        node("Add", ["s", "shift"], ["y"], name="batchnorm_add"),
    ]
    held = {"w": weights(6, 6, 5), "bias": weights(7, 5), "gain": weights(8, 5), "shift": weights(9, 5)}
    return make(nodes, [tensor("x", ["N", 6])], [ANY], held)


@sample
def padded_conv_behind() -> ModelProto:
    """Refusal: the BatchNorm stands between a Relu and a padded convolution, whose border would change."""
    conv = node("Conv", ["b", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    nodes = [node("Relu", ["x"], ["r"], name="relu"), bn_node("r", "b", "bn"), conv]
    return make(nodes, [IMAGE], [ANY], {"w": weights(10, 4, 3, 3, 3), **batch_norm("bn", 3)})


@sample
def training_mode() -> ModelProto:
    """Refusal, with a warning: the BatchNorm was exported in training mode."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node(
            "BatchNormalization",
            ["c", "bn_scale", "bn_bias", "bn_mean", "bn_var"],
            ["y", "new_mean", "new_var"],
            name="bn_bn",
            training_mode=1,
        ),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(11, 4, 3, 3, 3), **batch_norm("bn", 4)})


@sample
def two_consumers() -> ModelProto:
    """Refusal: somebody else, a Sigmoid, reads what the convolution makes."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["c"], ["s"], name="gate"),
        node("Mul", ["b", "s"], ["y"], name="gated"),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(12, 4, 3, 3, 3), **batch_norm("bn", 4)})


@sample
def shared_weight() -> ModelProto:
    """One weight, two convolutions, two BatchNorms: each gets a weight of its own."""
    nodes = [
        node("Conv", ["x", "w"], ["c1"], name="conv1"),
        bn_node("c1", "b1", "bn1"),
        node("Conv", ["z", "w"], ["c2"], name="conv2"),
        bn_node("c2", "b2", "bn2"),
        node("Add", ["b1", "b2"], ["y"], name="sum"),
    ]
    held = {"w": weights(13, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return make(nodes, [IMAGE, tensor("z", ["N", 3, 8, 8])], [ANY], held)


@sample
def if_branches() -> ModelProto:
    """In both branches of an If: one reads its weights from outside, one holds its own."""

    def branch(name: str, weight: str, held: dict[str, NDArray[np.generic]]) -> GraphProto:
        nodes = [
            node("Conv", ["x", weight], [f"{name}_c"], name=f"{name}_conv"),
            bn_node(f"{name}_c", f"{name}_y", "bn", name=f"{name}_bn"),
        ]
        tensors = [numpy_helper.from_array(data, key) for key, data in held.items()]
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [out], tensors)

    own = {"w_inside": weights(15, 4, 3, 3, 3)}
    nodes = [
        node(
            "If",
            ["flag"],
            ["y"],
            name="choice",
            then_branch=branch("then", "w", {}),
            else_branch=branch("else", "w_inside", own),
        )
    ]
    held = {"w": weights(14, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE, tensor("flag", [], TensorProto.BOOL)], [ANY], held)


@sample
def function() -> ModelProto:
    """Inside a model-local function, whose weights come from where it is called."""
    body = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"], name="bn"),
    ]
    names = ["x", "w", "scale", "bias", "mean", "var"]
    conv_bn = helper.make_function("local", "ConvBN", names, ["y"], body, [helper.make_opsetid("", 17)])
    call = [node("ConvBN", ["x", "w", "bn_scale", "bn_bias", "bn_mean", "bn_var"], ["y"], name="block", domain="local")]
    held = {"w": weights(16, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(call, [IMAGE], [ANY], held, functions=[conv_bn])


@sample
def external_data() -> ModelProto:
    """With the weights in a file beside the model."""
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], {"w": weights(17, 16, 3, 3, 3), **batch_norm("bn", 16)})


@sample
def half() -> ModelProto:
    """In float16, statistics in float32 (mixed precision): folded in float64, rounded once."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "y", "bn"),
    ]
    held = {"w": weights(18, 4, 3, 3, 3, dtype="float16"), **batch_norm("bn", 4)}
    held |= {name: held[name].astype("float16") for name in ("bn_scale", "bn_bias")}
    x = tensor("x", ["N", 3, 8, 8], TensorProto.FLOAT16)
    return make(nodes, [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)], held)


@sample
def channels_last() -> ModelProto:
    """Keras's layout: the BatchNorm's channels come last, the convolution's first, a Transpose between."""
    nodes = [
        node("Transpose", ["x"], ["nchw"], name="to_nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "w"], ["c"], name="conv"),
        node("Transpose", ["c"], ["nhwc"], name="to_nhwc", perm=[0, 2, 3, 1]),
        node("Mul", ["nhwc", "gain"], ["m"], name="batchnorm_mul"),
        node("Add", ["m", "shift"], ["y"], name="batchnorm_add"),
    ]
    held = {"w": weights(19, 4, 3, 3, 3), "gain": weights(20, 4), "shift": weights(21, 4)}
    return make(nodes, [tensor("x", ["N", 8, 8, 3])], [ANY], held)


def write(name: str, folder: Path = HERE) -> Path:
    """Write one sample and return its path."""
    path = folder / f"{name}.onnx"
    model = SAMPLES[name]()
    if name == "external_data":
        convert_model_to_external_data(model, location=f"{name}.data", size_threshold=64)
        (folder / f"{name}.data").unlink(missing_ok=True)
        model = write_external_data_tensors(model, str(folder))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def build_digits(folder: Path = HERE) -> None:
    """Train a small network on scikit-learn's digits and export it, with the test images held back."""
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import nn

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    seen, held_back, seen_labels, true = train_test_split(images, labels, test_size=0.2, random_state=0)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    x, y = torch.from_numpy(seen), torch.from_numpy(seen_labels)
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        found = network(torch.from_numpy(held_back)).argmax(1).numpy()
    print(f"digits: accuracy {np.mean(found == true):.4f} on {len(true)} held-back images")
    batch_size = torch.export.Dim("N")
    program = torch.export.export(network, (torch.from_numpy(held_back[:2]),), dynamic_shapes=({0: batch_size},))
    torch.export.save(program, folder / "digits.pt2")
    torch.onnx.export(
        network,
        (torch.from_numpy(held_back[:1]),),
        str(folder / "digits.onnx"),
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )
    np.savez_compressed(folder / "digits.npz", image=held_back, label=true)


if __name__ == "__main__":
    for sample_name in SAMPLES:
        print(write(sample_name))
    if "--digits" in sys.argv:
        build_digits()
