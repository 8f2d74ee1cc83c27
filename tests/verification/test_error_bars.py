"""The proof's error bars: as wide as rounding, however many wide layers lie before; no wider, and no narrower."""

import random

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import VerifyOptions
from sample_models.build import batch_norm, bn_node, make, node, tensor
from tests.fuzz.networks import network

PROOFS = VerifyOptions(("structure", "weights"))
UNVERIFIED = FoldOptions(verify=None)


def layers(depth, width, op="Gemm", relu=False, dtype="float32"):
    """Wide layers with BatchNorms, one behind the other."""
    rng = np.random.default_rng(depth * width)
    nodes, held, x = [], {}, "x"
    for k in range(depth):
        shape = (width, width, 3, 3) if op == "Conv" else (width, width)
        held[f"w{k}"] = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype)
        held[f"c{k}"] = rng.normal(0, 0.3, width).astype(dtype)
        transposed = {} if op == "Conv" else {"transB": 1}
        nodes.append(node(op, [x, f"w{k}", f"c{k}"], [f"g{k}"], **transposed))
        held |= batch_norm(f"b{k}", width, k, dtype)
        nodes.append(bn_node(f"g{k}", f"n{k}", f"b{k}"))
        x = f"n{k}"
        if relu:
            nodes.append(node("Relu", [x], [f"r{k}"]))
            x = f"r{k}"
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    size = [2, width, 8, 8] if op == "Conv" else [2, width]
    return make(nodes, [tensor("x", size, kind)], [tensor(x, None, kind)], held)


def paths_of(model, folder):
    paths = folder / "original.onnx", folder / "folded.onnx"
    paths[0].write_bytes(model.SerializeToString())
    fold(*paths, UNVERIFIED, force=True)
    return paths


def anonymous(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())


def scale_one_bias(path, layer, factor):
    """Change one entry of middling size in the bias of a layer."""
    model = onnx.load(path)
    held = next(t for t in model.graph.initializer if t.name.startswith(f"c{layer}_bnfold"))
    data = numpy_helper.to_array(held).copy()
    data[np.argsort(np.abs(data))[len(data) // 2]] *= factor
    held.CopyFrom(numpy_helper.from_array(data, held.name))
    path.write_bytes(model.SerializeToString())


NETWORKS = [(5, 384, "Gemm", False), (12, 96, "Gemm", False), (5, 48, "Conv", False), (5, 48, "Conv", True)]


@pytest.mark.parametrize("error", [0.1, 1e-3, 3e-5])
@pytest.mark.parametrize(("depth", "width", "op", "relu"), NETWORKS)
def test_a_wrong_bias_is_seen_behind_wide_layers(depth, width, op, relu, error, tmp_path):
    paths = paths_of(layers(depth, width, op, relu), tmp_path)
    anonymous(paths[1])
    right = paths[1].read_bytes()
    assert verify(*paths, PROOFS).verdict == "equivalent"
    for layer in (0, depth // 2, depth - 1):
        paths[1].write_bytes(right)
        scale_one_bias(paths[1], layer, 1 + error)
        found = verify(*paths, PROOFS).verification
        assert found.verdict == "different", layer


def test_a_bias_of_float16_is_held_to_the_ulps_of_float16(tmp_path):
    paths = paths_of(layers(5, 96, dtype="float16"), tmp_path)
    assert verify(*paths, PROOFS).verdict == "equivalent"
    scale_one_bias(paths[1], 2, 1.1)
    assert verify(*paths, PROOFS).verdict == "different"


def folded_in_float32(model: ModelProto) -> ModelProto:
    """As most tools fold: in the type of the weights, the bias as a difference of rounded products."""
    copy = ModelProto.FromString(model.SerializeToString())
    held = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer}
    for k in range(sum(entry.op_type == "BatchNormalization" for entry in copy.graph.node)):
        scale, bias, mean, var = (held[f"b{k}_{part}"] for part in ("scale", "bias", "mean", "var"))
        gain = scale / np.sqrt(var + np.float32(1e-5))
        held[f"w{k}"] = held[f"w{k}"] * gain.reshape(-1, *[1] * (held[f"w{k}"].ndim - 1))
        held[f"c{k}"] = (held[f"c{k}"] - mean) * gain + bias
    nodes = [entry for entry in copy.graph.node if entry.op_type != "BatchNormalization"]
    renamed = {f"n{k}": f"g{k}" for k in range(len(held))}
    for entry in nodes:
        entry.input[:] = [renamed.get(name, name) for name in entry.input]
    outputs = [tensor(renamed.get(info.name, info.name), None) for info in copy.graph.output]
    nodes[-1].output[0] = copy.graph.output[0].name
    del outputs
    used = {name for entry in nodes for name in entry.input}
    return make(nodes, list(copy.graph.input), list(copy.graph.output), {k: v for k, v in held.items() if k in used})


@pytest.mark.parametrize(("depth", "width", "op", "relu"), [*NETWORKS, (40, 64, "Gemm", False)])
def test_folds_computed_in_float32_are_right(depth, width, op, relu, tmp_path):
    model = layers(depth, width, op, relu)
    paths = tmp_path / "original.onnx", tmp_path / "folded.onnx"
    for path, one in zip(paths, (model, folded_in_float32(model)), strict=True):
        path.write_bytes(one.SerializeToString())
    assert verify(*paths, PROOFS).verdict == "equivalent"


@pytest.mark.parametrize("count", [80, pytest.param(200, marks=pytest.mark.slow)])
def test_no_false_alarm_on_right_folds(count, tmp_path):
    """Random networks, folded by bnfold and judged like anybody's; where nothing changed there is nothing to judge."""
    judged = alarms = 0
    for index in range(count):
        paths = paths_of(network(random.Random(7_000 + index).randrange), tmp_path)
        if any(entry.op_type == "BatchNormalization" for entry in onnx.load(paths[1]).graph.node):
            continue
        anonymous(paths[1])
        judged += 1
        alarms += verify(*paths, PROOFS).verdict == "different"
    assert judged > count / 2
    assert alarms == 0


def test_gains_that_cancel_in_a_sum(tmp_path):
    """The difference of two scales near each other: rounding each shows in what is left."""
    nodes = [node("Mul", ["x", "a"], ["p"]), node("Mul", ["x", "b"], ["q"]), node("Sub", ["p", "q"], ["y"])]
    gains = np.linspace(0.5, 1.5, 8, dtype="float32").reshape(8, 1, 1)
    exact = {"a": gains, "b": gains * np.float32(1 + 1e-4)}
    moved = {name: np.nextafter(data, np.float32(9)) for name, data in exact.items()}
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path, held in zip(paths, (exact, {**exact, "a": moved["a"]}), strict=True):
        path.write_bytes(make(nodes, [tensor("x", [2, 8, 4, 4])], [tensor("y", None)], held).SerializeToString())
    assert verify(*paths, PROOFS).verdict == "equivalent"
