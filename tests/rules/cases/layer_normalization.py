"""Cases of LayerNormalization."""

from __future__ import annotations

from tests.builders import batch_norm, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)

GRAPH = """(float[N, 6] x) => (float[] y) {
    t = LayerNormalization (x, s, c)
    y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
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
    graph = GRAPH.replace("float[N, 6] x", "float[N, 5, 6] x")
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 5)})


@case(0, ("unknown-shape",))
def behind_a_layer_normalization_of_two_axes():
    graph = GRAPH.replace("float[N, 6] x", "float[N, 5, 6] x").replace("(x, s, c)", "<axis = 1> (x, s, c)")
    return parse(graph, {"s": weights(1, 5, 6), "c": weights(2, 5, 6), **batch_norm("bn", 5)})


@case(0, ("nonlinear",))
def before_a_layer_normalization():
    graph = """(float[N, 6] x) => (float[] y) {
        a = Abs (x)
        t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        y = LayerNormalization (t, s, c)
    }"""
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)})


# --- its rows in the operator-context matrix

row("LayerNormalization", one("LayerNormalization", "k", "l"), k=some(6), l=some(6))
