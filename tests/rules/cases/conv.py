"""Cases of Conv: a BatchNorm behind it and in front of it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.builders import (
    ANY,
    IMAGE,
    ahead,
    batch_norm,
    behind_conv,
    bn_node,
    make,
    node,
    parse,
    tensor,
    weights,
    without_offset,
)
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


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
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w, "")
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(nodes=1)
def conv_dead_channel():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][2] = 0
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(0, ("dynamic-weights",))
def conv_weight_computed_at_run_time():
    graph = """(float[N, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[] y) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, batch_norm("bn", 4))


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
def channels_decayed_to_subnormal_numbers_are_dead():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][1] = 3e-41
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(nodes=1)
def before_an_unpadded_conv():
    return ahead(node("Conv", ["b", "w"], ["y"], name="conv"), held={"w": weights(1, 4, 3, 3, 3)})


@case(nodes=1)
def before_a_grouped_conv_with_bias():
    held = {"w": weights(1, 6, 2, 3, 3), "c": weights(2, 6)}
    conv = node("Conv", ["b", "w", "c"], ["y"], name="conv", group=2, strides=[2, 2])
    return ahead(conv, held=held, channels=4, x=tensor("x", ["N", 4, 9, 9]))


@case(nodes=1)
def before_a_padded_conv_without_offset():
    conv = node("Conv", ["b", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    return ahead(conv, held={"w": weights(1, 4, 3, 3, 3)}, bn=without_offset("bn", 3))


PADDED = """(float[N, 3, 8, 8] x) => (float[] y) {
    a = Sigmoid (x)
    b = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    y = Conv <pads = [1, 1, 1, 1]> (b, w)
}"""
OF_THE_INPUT = PADDED.replace("    a = Sigmoid (x)\n", "").replace("(a,", "(x,")
HELD = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 3)}


@case(0, ("padding",))
def before_a_padded_conv():
    return parse(PADDED, HELD)


@case(0, ("padding",))
def before_a_conv_that_pads_by_itself():
    return parse(PADDED.replace("pads = [1, 1, 1, 1]", 'auto_pad = "SAME_LOWER"'), HELD)


@case(nodes=2)
def the_normalization_of_an_input_before_a_padded_conv():
    """The scale goes into the Conv; the offset, divided by it, stays as one Add."""
    return parse(OF_THE_INPUT, HELD)


@case(nodes=3)
def the_normalization_of_an_input_before_a_pad_and_a_conv():
    graph = OF_THE_INPUT.replace("y = Conv <pads = [1, 1, 1, 1]> (b, w)", "p = Pad (b, pads)\n    y = Conv (p, w)")
    return parse(graph, {**HELD, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])})


@case(nodes=4)
def what_prepares_an_image_before_a_padded_conv():
    """Bytes of an image, channels last: what scales and normalizes them becomes one Add."""
    graph = """(uint8[N, 8, 8, 3] x) => (float[] y) {
        f = Cast <to = 1> (x)
        t = Transpose <perm = [0, 3, 1, 2]> (f)
        d = Div (t, most)
        s = Sub (d, mean)
        b = Div (s, deviation)
        y = Conv <pads = [1, 1, 1, 1]> (b, w)
    }"""
    mean, deviation = np.array([0.485, 0.456, 0.406], "f4"), np.array([0.229, 0.224, 0.225], "f4")
    held = {"most": np.array(255, "f4"), "mean": mean.reshape(3, 1, 1), "deviation": deviation.reshape(3, 1, 1)}
    return parse(graph, {**held, "w": weights(1, 4, 3, 3, 3)})


@case(0, ("graph-input",))
def the_normalization_of_an_input_with_a_scale_of_zero():
    held = {name: data.copy() for name, data in HELD.items()}
    held["bn_scale"][1] = 0
    return parse(OF_THE_INPUT, held)


@case(0, ("graph-input",))
def the_normalization_of_an_input_that_more_than_the_conv_reads():
    graph = OF_THE_INPUT.replace("float[] y)", "float[] y, float[] z)").replace("}", "    z = Sigmoid (b)\n}")
    return parse(graph, HELD)


@case(0, ("padding",))
def the_normalization_of_an_input_before_operators_broadcast_by_axes():
    return parse(OF_THE_INPUT.replace("Normalization (", "Normalization <is_test = 1> ("), HELD, opset=6)


@case(nodes=1)
def before_a_conv_whose_auto_pad_comes_to_nothing():
    conv = node("Conv", ["b", "w"], ["y"], name="conv", auto_pad="SAME_UPPER", strides=[2, 2])
    return ahead(conv, held={"w": weights(1, 4, 3, 2, 2)})


@case(nodes=2)
def a_dead_channel_goes_to_the_producer():
    bn = batch_norm("bn", 4)
    bn["bn_scale"][1] = 0
    held = {"w2": weights(2, 5, 4, 1, 1)}
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    nodes = [conv, bn_node("t", "b", "bn"), node("Conv", ["b", "w2"], ["y"], name="conv2")]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **bn, **held})


@case(0, ("graph-output",))
def conv_output_is_a_graph_output():
    graph = """(float[N, 3, 8, 8] x) => (float[] t, float[] y) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


# --- its rows in the operator-context matrix

for rank in (1, 2, 3):
    size = (2, 4, *(5, 6, 7)[:rank])
    row(f"Conv of {rank}", one("Conv", "k"), shape=size, k=some(6, 4, *[2] * rank))
    row(
        f"Conv of {rank}, padded",
        one("Conv", "k", "l", pads=[1] * 2 * rank),
        shape=size,
        k=some(6, 4, *[2] * rank),
        l=some(6),
    )
for groups in (2, 4, 8):
    row(f"Conv, {groups} groups", one("Conv", "k", group=groups), k=some(16, 8 // groups, 1, 1))
for size in (4, 5, None):
    row(f"Conv SAME_LOWER of {size}", one("Conv", "k", auto_pad="SAME_LOWER", strides=[2, 2]),
        shape=(2, 4, size or "H", 4), k=some(6, 4, 2, 2))  # fmt: skip
row("Conv of unknown rank", node("Reshape", ["c", "s"], ["r"]), node("Conv", ["r", "k"], ["d"], auto_pad="SAME_UPPER"),
    s=[2, 8, 4, 6], k=some(6, 8, 1, 1))  # fmt: skip
row("Conv VALID", one("Conv", "k", auto_pad="VALID"), k=some(6, 8, 3, 3))
