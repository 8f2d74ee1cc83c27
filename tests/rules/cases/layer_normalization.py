"""Cases of LayerNormalization and RMSNormalization."""

from __future__ import annotations

from tests.builders import batch_norm, parse, positive, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)

GRAPH = """(float[N, 6] x) => (float[] y) {
    t = LayerNormalization (x, s, c)
    y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
}"""
OF_AN_IMAGE = GRAPH.replace("float[N, 6] x", "float[N, 5, 6] x")
OF_TWO_AXES = OF_AN_IMAGE.replace("(x, s, c)", "<axis = 1> (x, s, c)")
ROOT_MEAN_SQUARE = GRAPH.replace("LayerNormalization (x, s, c)", "RMSNormalization (x, s)")
IN_FRONT = """(float[N, 5, 6] x) => (float[] y) {
    p = Conv (x, w)
    a = Relu (p)
    t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    y = LayerNormalization (t, s, c)
}"""


@case(nodes=1)
def behind_a_layer_normalization():
    return parse(GRAPH, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)})


@case(nodes=1)
def behind_a_layer_normalization_without_bias():
    return parse(GRAPH.replace("x, s, c", "x, s"), {"s": weights(1, 6), **batch_norm("bn", 6)})


@case(nodes=2)
def behind_a_layer_normalization_of_positions():
    graph = """(float[N, 5, 6] x) => (float[] y) {
        t = LayerNormalization (x, s, c)
        u = Transpose <perm = [0, 2, 1]> (t)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)})


@case(0, ("channel-axis",))
def behind_a_layer_normalization_along_another_axis():
    return parse(OF_AN_IMAGE, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 5)})


@case(nodes=1)
def behind_a_layer_normalization_of_two_axes():
    return parse(OF_TWO_AXES, {"s": weights(1, 5, 6), "c": weights(2, 5, 6), **batch_norm("bn", 5)})


@case(0, ("unknown-shape",))
def behind_a_layer_normalization_of_two_axes_whose_scale_is_broadcast():
    return parse(OF_TWO_AXES, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 5)})


@case(0, ("nonlinear",))
def behind_a_layer_normalization_whose_statistics_are_read():
    graph = GRAPH.replace("float[] y", "float[] y, float[] mean").replace("t =", "t, mean =")
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)})


@case(0, ("nonlinear",))
def before_a_layer_normalization():
    graph = """(float[N, 6] x) => (float[] y) {
        a = Abs (x)
        t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        y = LayerNormalization (t, s, c)
    }"""
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)})


@case(nodes=3)
def before_a_layer_normalization_that_loses_the_offset():
    """The mean of a row takes the offset of its channel along; the scale goes through the Relu to the layer."""
    held = {"w": weights(3, 5, 5, 1), "s": weights(1, 6), "c": weights(2, 6), **positive("bn", 5)}
    return parse(IN_FRONT, held)


@case(0, ("nonlinear",))
def before_a_layer_normalization_over_the_channels():
    graph = IN_FRONT.replace("(t, s, c)", "<axis = 1> (t, s, c)")
    held = {"w": weights(3, 5, 5, 1), "s": weights(1, 5, 6), "c": weights(2, 5, 6), **positive("bn", 5)}
    return parse(graph, held)


@case(0, ("nonlinear",))
def before_a_normalization_by_the_root_mean_square():
    graph = IN_FRONT.replace("LayerNormalization (t, s, c)", "RMSNormalization (t, s)")
    return parse(graph, {"w": weights(3, 5, 5, 1), "s": weights(1, 6), **positive("bn", 5)}, opset=23)


@case(nodes=2)
def behind_a_normalization_by_the_root_mean_square():
    """It has no bias: the offset stays behind, as one Add."""
    return parse(ROOT_MEAN_SQUARE, {"s": weights(1, 6), **batch_norm("bn", 6)}, opset=23)


@case(nodes=2)
def between_a_normalization_by_the_root_mean_square_and_a_layer():
    graph = ROOT_MEAN_SQUARE.replace("y =", "b =").replace("}", "    y = Gemm (b, w, d)\n}")
    held = {"s": weights(1, 6), "w": weights(2, 6, 4), "d": weights(3, 4), **batch_norm("bn", 6)}
    return parse(graph, held, opset=23)


# --- its rows in the operator-context matrix

row("LayerNormalization", one("LayerNormalization", "k", "l"), k=some(6), l=some(6))
row("LayerNormalization of the image", one("LayerNormalization", "k", axis=1), k=some(8, 4, 6))
row("RMSNormalization", one("RMSNormalization", "k"), k=some(6), opset=23)
row("RMSNormalization of two axes", one("RMSNormalization", "k", axis=-2), k=some(4, 6), opset=23)
