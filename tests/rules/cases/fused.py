"""Cases of operators that onnxruntime's optimizer makes of several."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.builders import (
    batch_norm,
    bn_node,
    exact_batch_norm,
    make_unchecked,
    node,
    positive,
    tensor,
    weights,
    without_offset,
)
from tests.matrix.row import Row
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case = cases_in(CASES)


def _model(nodes: list[Any], size: list[int | str], **held: Any) -> ModelProto:
    for each in nodes:
        if each.op_type.startswith(("Fused", "Skip", "QuickGelu")):
            each.domain = "com.microsoft"
    model = make_unchecked(
        nodes, [tensor("x", size)], [tensor("y", [f"size{axis}" for axis in range(len(size))])], held
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _conv(activation: str, norm: dict[str, Any], **attributes: Any) -> ModelProto:
    conv = node("FusedConv", ["x", "w", "c"], ["t"], name="conv", activation=activation, **attributes)
    return _model([conv, bn_node("t", "y", "bn")], ["N", 3, 8, 8], w=weights(1, 4, 3, 3, 3), c=weights(2, 4), **norm)


@case(nodes=1)
def behind_a_conv_with_a_relu():
    return _conv("Relu", without_offset("bn", 4))


@case(nodes=1)
def behind_a_conv_with_a_leaky_relu():
    return _conv("LeakyRelu", without_offset("bn", 4), activation_params=[0.2], pads=[1, 1, 1, 1])


@case(0, ("nonlinear",))
def behind_a_conv_with_a_relu_with_offsets():
    return _conv("Relu", positive("bn", 4))


@case(0, ("nonlinear",))
def behind_a_conv_with_a_sigmoid():
    return _conv("Sigmoid", without_offset("bn", 4))


def _before(fused: Any, size: list[int | str], channels: int, **held: Any) -> ModelProto:
    nodes = [node("Elu", ["x"], ["z"]), bn_node("z", "b", "bn"), fused]
    return _model(nodes, size, **batch_norm("bn", channels), **held)


@case(nodes=2)
def before_a_conv_with_a_sigmoid():
    conv = node("FusedConv", ["b", "w"], ["y"], activation="Sigmoid")
    return _before(conv, ["N", 3, 8, 8], 3, w=weights(1, 4, 3, 3, 3))


@case(0, ("padding",))
def before_a_padded_conv_with_a_relu():
    conv = node("FusedConv", ["b", "w"], ["y"], activation="Relu", pads=[1, 1, 1, 1])
    return _before(conv, ["N", 3, 8, 8], 3, w=weights(1, 4, 3, 3, 3))


@case(nodes=2)
def before_a_gemm_with_a_relu():
    gemm = node("FusedGemm", ["b", "w", "c"], ["y"], activation="Relu", transB=1, alpha=0.5)
    return _before(gemm, ["N", 6], 6, w=weights(1, 4, 6), c=weights(2, 4))


@case(0, ("nonlinear",))
def before_a_conv_with_a_sum():
    """The fourth input is added before the activation."""
    conv = node("FusedConv", ["b", "w", "c", "x"], ["y"], activation="Relu")
    return _before(conv, ["N", 4, 8, 8], 4, w=weights(1, 4, 4, 1, 1), c=weights(2, 4))


@case(nodes=4)
def before_a_product_with_a_transposed_value():
    """The channels are rows; alpha multiplies the offset too, which the Add behind takes."""
    product = node("FusedMatMul", ["b", "k"], ["m"], transA=1, alpha=0.5)
    model = _before(product, ["N", 6, 5], 6, k=weights(1, 6, 4), c=weights(2, 4))
    model.graph.node.append(node("Add", ["m", "c"], ["o"]))
    model.graph.node.append(node("Sigmoid", ["o"], ["y"]))
    return model


@case(nodes=3)
def behind_a_product_with_a_transposed_matrix():
    nodes = [
        node("FusedMatMul", ["x", "k"], ["m"], transB=1, alpha=2.0),
        node("Add", ["m", "c"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
        bn_node("t", "y", "bn"),
    ]
    return _model(nodes, [2, 5, 6], k=weights(1, 4, 6), c=weights(2, 4), **batch_norm("bn", 4))


def _skip_norm(*behind: Any, **held: Any) -> ModelProto:
    norm = node("SkipLayerNormalization", ["x", "k", "g", *held], ["t"], epsilon=1e-5)
    parts = {"k": weights(1, 2, 5, 4), "g": weights(2, 4), **held, **batch_norm("bn", 4)}
    return _model([norm, node("Transpose", ["t"], ["u"], perm=[0, 2, 1]), *behind], [2, 5, 4], **parts)


@case(nodes=2)
def behind_the_norm_of_a_sum():
    return _skip_norm(bn_node("u", "y", "bn"), h=weights(3, 4))


@case(nodes=2)
def behind_the_norm_of_a_sum_without_a_bias():
    return _skip_norm(bn_node("u", "y", "bn"))


@case(0, ("nonlinear",))
def before_the_norm_of_a_sum():
    norm = node("SkipLayerNormalization", ["b", "k", "g"], ["y"])
    return _before(norm, [2, 5, 4], 5, k=weights(1, 2, 5, 4), g=weights(2, 4))


@case(0, ("nonlinear",))
def behind_a_quick_gelu():
    """Onnxruntime's activations are no unknown operators."""
    held, norm = exact_batch_norm(2.0, 0.5)
    nodes = [node("Conv", ["x", "w"], ["t"]), node("QuickGelu", ["t"], ["s"], alpha=1.702), norm]
    return _model([*nodes, node("Sigmoid", ["b"], ["y"])], ["N", 3, 4, 4], w=weights(1, 4, 3, 1, 1), **held)


def optimized() -> dict[str, ModelProto]:
    """Return small networks whose BatchNorms onnxruntime's optimizer leaves, by name."""
    first = [node("Conv", ["x", "w", "c"], ["t"]), node("Relu", ["t"], ["r"]), bn_node("r", "b", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(5, 4), **batch_norm("bn", 4), "v": weights(2, 5, 4, 1, 1)}
    conv = [*first, node("Conv", ["b", "v", "d"], ["e"]), node("LeakyRelu", ["e"], ["y"])]
    flat = [node("Elu", ["x"], ["r"]), bn_node("r", "b", "bn"), node("Gemm", ["b", "m", "d"], ["e"], transB=1)]
    rows = [
        node("Elu", ["x"], ["r"]), bn_node("r", "b", "bn"), node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "n"], ["e"]), node("Mul", ["e", "half"], ["f"]), node("Add", ["f", "d"], ["a"]),
        node("Softmax", ["a"], ["y"]),
    ]  # fmt: skip
    sums = [
        node("Add", ["x", "s"], ["a"]), node("LayerNormalization", ["a", "g", "h"], ["l"], axis=-1),
        node("Transpose", ["l"], ["t"], perm=[0, 2, 1]), bn_node("t", "b", "bn"), node("Sigmoid", ["b"], ["y"]),
    ]  # fmt: skip
    more = {"d": weights(3, 5), "m": weights(4, 5, 4), "n": weights(4, 4, 5), "half": np.float32(0.5)}
    more |= {"s": weights(6, 2, 6, 4), "g": weights(7, 4), "h": weights(8, 4)}
    found = {}
    for name, nodes, size in (
        ("FusedConv", conv, [1, 3, 8, 8]),
        ("FusedGemm", [*flat, node("Relu", ["e"], ["y"])], [2, 4]),
        ("FusedMatMul", rows, [2, 4, 6]),
        ("SkipLayerNormalization", sums, [2, 6, 4]),
    ):
        used = {key: data for key, data in {**held, **more}.items() if any(key in each.input for each in nodes)}
        found[name] = make_unchecked(nodes, [tensor("x", size)], [tensor("y", None)], used)
    return found
