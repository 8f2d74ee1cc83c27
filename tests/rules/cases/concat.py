"""Cases of Concat."""

from __future__ import annotations

from tests.builders import batch_norm, node, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=3)
def behind_a_concat_of_convolutions():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Conv (x, w2)
        s = Concat <axis = 1> (t, u)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 2, 3, 3, 3), **batch_norm("bn", 6)}
    return parse(graph, held)


@case(nodes=2)
def behind_a_concat_with_a_constant():
    graph = """(float[1, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        s = Concat <axis = 1> (t, k)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 1, 2, 6, 6), **batch_norm("bn", 6)}
    return parse(graph, held)


@case(nodes=3)
def behind_a_concat_along_the_height():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Conv (x, w2)
        s = Concat <axis = 2> (t, u)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(0, ("graph-input",))
def behind_a_concat_with_an_input():
    graph = """(float[N, 3, 8, 8] x, float[N, 2, 6, 6] z) => (float[] y) {
        t = Conv (x, w)
        s = Concat <axis = 1> (t, z)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 6)}
    return parse(graph, held)


# --- its rows in the operator-context matrix

for axis in (0, 1, 2, -1, -3):
    row(f"Concat {axis}", one("Concat", "c", axis=axis))
    shape = [2, 8, 4, 6]
    shape[axis] = 3
    row(f"Concat with a constant {axis}", one("Concat", "k", axis=axis), k=some(*shape))
    row(
        f"Concat with two constants {axis}",
        node("Concat", ["k", "c", "l"], ["d"], axis=axis),
        k=some(*shape),
        l=some(*shape, seed=4),
    )
    row(f"Concat with a branch {axis}", node("Sigmoid", ["c"], ["s"]), one("Concat", "s", axis=axis))
row("Concat of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Concat", "p", "c", axis=1))
row("Concat of unknown sizes", one("Concat", "c", axis=0), shape=("N", 8, 4, 6))
row("Concat of unknown channels", one("Concat", "c", axis=1), shape=(2, "C", 4, 6))
