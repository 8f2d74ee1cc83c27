"""Small models, each with what bnfold must do with it: a new case is a new function.

``folds`` counts the affine operators that must go, ``kept`` lists the reasons of those that must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from build import ANY, IMAGE, batch_norm, bn_node, make, node, tensor, weights
from onnx import ModelProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], ModelProto]
    folds: int
    kept: tuple[str, ...] = ()
    nodes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    ulps: float = 64.0


CASES: list[Case] = []


def case(
    folds: int = 1, kept: tuple[str, ...] = (), nodes: int | None = None, ulps: float = 64.0, **options: Any
) -> Any:
    def register(build: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
        CASES.append(Case(build.__name__, build, folds, kept, nodes, options, ulps))
        return build

    return register


def behind_conv(shape, weight, channels, *, opset=17, ir_version=8, bias=None, bn=None, attributes=None, **conv):
    """Conv → BatchNormalization."""
    inputs = ["x", "w"] + (["c"] if bias is not None else [])
    nodes = [node("Conv", inputs, ["t"], name="conv", **conv), bn_node("t", "y", "bn", **(attributes or {}))]
    held = {"w": weight, **(bn or batch_norm("bn", channels))}
    if bias is not None:
        held["c"] = bias
    return make(nodes, [tensor("x", shape)], [ANY], held, opset=opset, ir_version=ir_version)


# --- Conv


@case(nodes=1)
def conv_1d():
    return behind_conv(["N", 3, 9], weights(1, 4, 3, 3), 4, pads=[1, 1], strides=[2])


@case(nodes=1)
def conv_3d_with_bias():
    return behind_conv(["N", 2, 4, 4, 4], weights(1, 4, 2, 2, 2, 2), 4, bias=weights(2, 4))


@case(nodes=1)
def conv_grouped_dilated():
    return behind_conv(["N", 4, 9, 9], weights(1, 6, 2, 3, 3), 6, group=2, dilations=[2, 2], pads=[2, 2, 2, 2])


@case(nodes=1)
def conv_depthwise_auto_pad():
    return behind_conv(["N", 4, 9, 9], weights(1, 4, 1, 3, 3), 4, group=4, auto_pad="SAME_UPPER", strides=[2, 2])


@case(nodes=1)
def conv_empty_bias_name():
    nodes = [node("Conv", ["x", "w", ""], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(nodes=1)
def conv_dead_channel():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][2] = 0
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(0, ("dynamic-weights",))
def conv_weight_computed_at_run_time():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE, tensor("w", [4, 3, 3, 3])], [ANY], batch_norm("bn", 4))


@case(0, ("dynamic-statistics",))
def statistics_computed_at_run_time():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    del held["bn_mean"]
    return make(nodes, [IMAGE, tensor("bn_mean", [4])], [ANY], held)


@case(nodes=1, ulps=512)
def conv_float16():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3, dtype="float16"), **batch_norm("bn", 4, dtype="float16")}
    x, y = tensor("x", [1, 3, 8, 8], TensorProto.FLOAT16), helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    return make(nodes, [x], [y], held)


@case(nodes=1, ulps=512)
def conv_float16_with_float32_statistics():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3, dtype="float16"), **batch_norm("bn", 4)}
    held |= {name: held[name].astype("float16") for name in ("bn_scale", "bn_bias")}
    x, y = tensor("x", [1, 3, 8, 8], TensorProto.FLOAT16), helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    return make(nodes, [x], [y], held)


@case(0, ("overflow",))
def float16_weight_would_overflow():
    bn = batch_norm("bn", 4, dtype="float16")
    bn["bn_var"][:] = 1e-7
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn", epsilon=1e-12)]
    held = {"w": weights(1, 4, 3, 3, 3, dtype="float16") * np.float16(100), **bn}
    x, y = tensor("x", [1, 3, 8, 8], TensorProto.FLOAT16), helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    return make(nodes, [x], [y], held)


@case(0, ("overflow",))
def float16_weight_would_underflow():
    bn = batch_norm("bn", 4, dtype="float16")
    bn["bn_var"][:] = 6e4
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3, dtype="float16") * np.float16(0.01), **bn}
    x, y = tensor("x", [1, 3, 8, 8], TensorProto.FLOAT16), helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    return make(nodes, [x], [y], held)


@case(nodes=1)
def channels_decayed_to_nothing_are_dead_either_way():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][1] = 3e-41
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(0, ("degenerate-variance",))
def negative_variance():
    bn = batch_norm("bn", 4)
    bn["bn_var"][0] = -1
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(0, ("overflow",))
def statistics_not_finite():
    bn = batch_norm("bn", 4)
    bn["bn_mean"][0] = np.nan
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


# --- opsets and modes


@case(nodes=1)
def opset_7():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=7, ir_version=3, attributes={"spatial": 1})


@case(nodes=1)
def opset_14_explicit_inference():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=14, attributes={"training_mode": 0})


@case(nodes=1)
def epsilon_far_from_the_default():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, attributes={"epsilon": 0.1})


@case(0, ("training-mode",))
def opset_15_training():
    model = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=15, attributes={"training_mode": 1})
    model.graph.node[1].output.extend(["new_mean", "new_var"])
    return model


@case(0, ("per-activation",))
def opset_7_per_activation():
    rng = np.random.default_rng(1)
    bn = {f"bn_{part}": rng.uniform(0.5, 2, (4, 6, 6)).astype("float32") for part in ("scale", "bias", "mean", "var")}
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=7, bn=bn, attributes={"spatial": 0})


# --- ConvTranspose, Gemm, MatMul


@case(nodes=1)
def conv_transpose_grouped():
    conv = node(
        "ConvTranspose",
        ["x", "w", "c"],
        ["t"],
        name="up",
        group=2,
        strides=[2, 2],
        output_padding=[1, 1],
        pads=[1, 1, 1, 1],
    )
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(2, 6), **batch_norm("bn", 6)}
    return make([conv, bn_node("t", "y", "bn")], [tensor("x", ["N", 4, 5, 5])], [ANY], held)


@case(nodes=1)
def conv_transpose_1d_without_bias():
    held = {"w": weights(1, 4, 3, 3), **batch_norm("bn", 3)}
    nodes = [node("ConvTranspose", ["x", "w"], ["t"], name="up"), bn_node("t", "y", "bn")]
    return make(nodes, [tensor("x", ["N", 4, 5])], [ANY], held)


def behind_gemm(c, **attributes):
    shape = (5, 6) if attributes.get("transB") else (6, 5)
    inputs = ["x", "w"] + (["c"] if c is not None else [])
    nodes = [node("Gemm", inputs, ["t"], name="dense", **attributes), bn_node("t", "y", "bn")]
    held = {"w": weights(1, *shape), **batch_norm("bn", 5)}
    if c is not None:
        held["c"] = c
    return make(nodes, [tensor("x", [6, 3] if attributes.get("transA") else [3, 6])], [ANY], held)


@case(nodes=1)
def gemm_alpha_beta_trans_b():
    return behind_gemm(weights(2, 5), alpha=0.5, beta=3.0, transB=1)


@case(nodes=1)
def gemm_trans_a():
    return behind_gemm(weights(2, 1, 5), transA=1, beta=0.5)


@case(nodes=1)
def gemm_column_of_biases_grows_to_a_matrix():
    return behind_gemm(weights(2, 3, 1), alpha=2.0)


@case(nodes=1)
def gemm_scalar_bias():
    return behind_gemm(np.float32(0.5), beta=-1.0)


@case(nodes=1)
def gemm_without_bias():
    return behind_gemm(None, alpha=0.25, beta=7.0)


@case(nodes=1)
def gemm_full_bias():
    return behind_gemm(weights(2, 3, 5), beta=2.0)


@case(nodes=2)
def matmul_becomes_matmul_and_add():
    nodes = [node("MatMul", ["x", "w"], ["t"], name="dense"), bn_node("t", "y", "bn")]
    return make(nodes, [tensor("x", [3, 6])], [ANY], {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(nodes=2)
def matmul_add():
    nodes = [
        node("MatMul", ["x", "w"], ["t"], name="dense"),
        node("Add", ["c", "t"], ["a"], name="bias"),
        bn_node("a", "y", "bn"),
    ]
    held = {"w": weights(1, 6, 5), "c": weights(2, 5), **batch_norm("bn", 5)}
    return make(nodes, [tensor("x", [3, 6])], [ANY], held)


@case(0, ("channel-axis",))
def matmul_rank_3_normalises_the_rows():
    nodes = [node("MatMul", ["x", "w"], ["t"], name="dense"), bn_node("t", "y", "bn")]
    return make(nodes, [tensor("x", [2, 5, 6])], [ANY], {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(0, ("dynamic-weights",))
def matmul_of_two_computed_values():
    nodes = [node("MatMul", ["x", "z"], ["t"], name="scores"), bn_node("t", "y", "bn")]
    return make(nodes, [tensor("x", [3, 6]), tensor("z", [6, 5])], [ANY], batch_norm("bn", 5))


# --- what lies between


@case(2, nodes=1)
def batch_norm_behind_batch_norm():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "u", "bn1"),
        bn_node("u", "y", "bn2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return make(nodes, [IMAGE], [ANY], held)


@case(1, ("graph-input",), nodes=1)
def batch_norm_into_one_that_stays():
    nodes = [bn_node("x", "u", "bn1"), bn_node("u", "y", "bn2")]
    return make(nodes, [IMAGE], [ANY], {**batch_norm("bn1", 3, 1), **batch_norm("bn2", 3, 2)})


@case(nodes=2)
def conv_add_constant():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Add", ["t", "k"], ["a"], name="bias"),
        bn_node("a", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 4, 1, 1), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=3)
def identity_and_dropout_between():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Identity", ["t"], ["i"], name="id"),
        node("Dropout", ["i"], ["d"], name="drop"),
        bn_node("d", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(0, ("nonlinear",))
def relu_between():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Relu", ["t"], ["r"], name="relu"),
        bn_node("r", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(0, ("graph-output",))
def conv_output_is_a_graph_output():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [helper.make_tensor_value_info("t", 1, None), ANY], held)


@case(2, nodes=2)
def two_outputs_of_the_same_batch_norm():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
        bn_node("t", "z", "bn", name="again"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY, helper.make_tensor_value_info("z", 1, None)], held)


# --- sharing


@case(2, nodes=2)
def one_weight_in_two_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        bn_node("t", "u", "bn1"),
        node("Conv", ["z", "w"], ["v"], name="conv2"),
        bn_node("v", "y", "bn2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    u = helper.make_tensor_value_info("u", 1, None)
    return make(nodes, [IMAGE, tensor("z", ["N", 3, 8, 8])], [ANY, u], held)


@case(1, nodes=2)
def weight_shared_with_a_convolution_without_batch_norm():
    nodes = [
        node("Conv", ["x", "w", "c"], ["t"], name="conv1"),
        bn_node("t", "y", "bn"),
        node("Conv", ["x", "w", "c"], ["z"], name="conv2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(2, 4), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY, helper.make_tensor_value_info("z", 1, None)], held)


@case(2, nodes=2)
def one_batch_norms_statistics_for_two_layers():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        bn_node("t", "u", "bn"),
        node("Conv", ["u", "v"], ["s"], name="conv2"),
        bn_node("s", "y", "bn", name="bn_again"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "v": weights(2, 4, 4, 1, 1), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(1, nodes=1)
def new_names_avoid_those_in_use():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    held |= {"w_bnfold": weights(2, 1), "t_bias_bnfold": weights(3, 1)}
    return make(nodes, [IMAGE], [ANY], held)


# --- constants in all their forms


@case(nodes=1)
def weights_in_constant_nodes():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    nodes = [node("Constant", [], [name], value=numpy_helper.from_array(data)) for name, data in held.items()]
    nodes += [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], {})


@case(nodes=1)
def statistics_as_lists_of_floats():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    nodes = [
        node("Constant", [], [name], value_floats=[float(v) for v in held.pop(name)]) for name in ("bn_mean", "bn_var")
    ]
    nodes += [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def weights_behind_identity_cast_and_reshape():
    held = {"raw": weights(1, 4, 27, dtype="float64"), "shape": np.array([4, 3, 3, 3]), **batch_norm("bn", 4)}
    nodes = [
        node("Cast", ["raw"], ["cast"], to=TensorProto.FLOAT),
        node("Reshape", ["cast", "shape"], ["shaped"]),
        node("Identity", ["shaped"], ["w"]),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def statistics_from_constant_of_shape():
    held = {"w": weights(1, 4, 3, 3, 3), "four": np.array([4]), **batch_norm("bn", 4)}
    del held["bn_var"]
    value = numpy_helper.from_array(np.array([2.5], np.float32))
    nodes = [
        node("ConstantOfShape", ["four"], ["bn_var"], value=value),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def variance_computed_from_a_constant_deviation():
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    held["deviation"] = np.sqrt(held.pop("bn_var"))
    nodes = [
        node("Mul", ["deviation", "deviation"], ["bn_var"]),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def bias_that_torch_computes():
    """What torch.onnx.export(optimize=False) writes for a missing bias."""
    held = {"w": weights(1, 4, 3, 3, 3), "one": np.array([1]), "zero": np.float32(0), **batch_norm("bn", 4)}
    nodes = [
        node("Shape", ["w"], ["channels"], start=0, end=1),
        node("Expand", ["channels", "one"], ["shape"]),
        node("CastLike", ["zero", "x"], ["cast"]),
        node("Expand", ["cast", "shape"], ["bias"]),
        node("Conv", ["x", "w", "bias"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def weights_dequantized_from_integers():
    rng = np.random.default_rng(1)
    held = {
        "q": rng.integers(-128, 127, (4, 3, 3, 3)).astype("int8"),
        "scale": rng.uniform(0.01, 0.1, 4).astype("float32"),
    }
    held |= {"zero": np.zeros(4, np.int8), **batch_norm("bn", 4)}
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["w"], name="dq", axis=0),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], held)


# --- who may override what


def _listed(ir_version):
    model = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=9, ir_version=ir_version)
    model.graph.input.extend(tensor(t.name, list(t.dims)) for t in model.graph.initializer)
    return model


@case(0, ("overridable",))
def initializers_listed_as_inputs():
    return _listed(4)


@case(1, nodes=1, freeze=True)
def initializers_listed_as_inputs_frozen():
    return _listed(4)


@case(1, nodes=1)
def initializers_listed_as_inputs_in_ir_3():
    return _listed(3)


# --- decomposed and scale chains


def chain(nodes, held, rank=4):
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    return make([conv, *nodes], [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **held})


@case(nodes=1)
def decomposed_with_square_root():
    held = {name: data.reshape(4, 1, 1) for name, data in batch_norm("bn", 4).items()}
    held["eps"] = np.float32(1e-3)
    return chain(
        [
            node("Sub", ["t", "bn_mean"], ["centred"]),
            node("Add", ["bn_var", "eps"], ["ve"]),
            node("Sqrt", ["ve"], ["deviation"]),
            node("Div", ["centred", "deviation"], ["normal"]),
            node("Mul", ["bn_scale", "normal"], ["scaled"]),
            node("Add", ["bn_bias", "scaled"], ["y"], name="bn"),
        ],
        held,
    )


@case(nodes=1)
def constant_minus_value():
    held = {"k": weights(2, 4, 1, 1), "m": weights(3, 4, 1, 1)}
    return chain([node("Sub", ["k", "t"], ["s"]), node("Mul", ["s", "m"], ["y"], name="bn")], held)


@case(2, nodes=1)
def caffe_scale_behind_batch_norm_folds_with_it():
    held = {"m": weights(3, 4, 1, 1), **batch_norm("bn", 4)}
    return chain([bn_node("t", "u", "bn"), node("Mul", ["u", "m"], ["y"], name="scale")], held)


@case(0, ("per-activation",))
def a_vector_as_wide_as_the_image_is_not_per_channel():
    """[W] with W == C broadcasts along the last axis, whatever its length says."""
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    held = {"w": weights(1, 4, 3, 3, 3), "m": weights(2, 4), "k": weights(3, 4)}
    nodes = [conv, node("Mul", ["t", "m"], ["s"]), node("Add", ["s", "k"], ["y"], name="bn")]
    return make(nodes, [tensor("x", [1, 3, 6, 6])], [ANY], held)


@case(0)
def a_constant_of_higher_rank_grows_the_result():
    held = {"m": weights(2, 2, 1, 4, 1, 1), "k": weights(3, 2, 1, 4, 1, 1)}
    return chain([node("Mul", ["t", "m"], ["s"]), node("Add", ["s", "k"], ["y"], name="bn")], held)


# --- nested graphs and functions


@case(2)
def if_branches():
    import build

    return build.if_branches()


@case(1, nodes=1)
def function_call():
    import build

    return build.function()


@case(1)
def loop_body_with_weights_outside():
    body = helper.make_graph(
        [
            node("Conv", ["state", "w"], ["t"], name="conv", pads=[1, 1, 1, 1]),
            bn_node("t", "next", "bn"),
            node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("state", [1, 3, 8, 8])],
        [tensor("go_on", [], TensorProto.BOOL), tensor("next", [1, 3, 8, 8])],
    )
    nodes = [node("Loop", ["trips", "", "x"], ["y"], name="loop", body=body)]
    held = {"w": weights(1, 3, 3, 3, 3), "trips": np.array(2), **batch_norm("bn", 3)}
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held)


@case(0, ("control-flow",))
def conv_output_read_by_a_nested_graph():
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_y", 1, None)
        return helper.make_graph([node(op, ["t"], [f"{name}_y"])], name, [], [out])

    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
        node(
            "If", ["flag"], ["z"], name="choice", then_branch=branch("then", "Abs"), else_branch=branch("else", "Neg")
        ),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    outputs = [ANY, helper.make_tensor_value_info("z", 1, None)]
    return make(nodes, [IMAGE, tensor("flag", [], TensorProto.BOOL)], outputs, held)


@case(1, nodes=2)
def batch_norm_output_read_by_a_nested_graph():
    def branch(name, op):
        out = helper.make_tensor_value_info(f"{name}_y", 1, None)
        return helper.make_graph([node(op, ["b"], [f"{name}_y"])], name, [], [out])

    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "b", "bn"),
        node(
            "If", ["flag"], ["y"], name="choice", then_branch=branch("then", "Abs"), else_branch=branch("else", "Neg")
        ),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE, tensor("flag", [], TensorProto.BOOL)], [ANY], held)
