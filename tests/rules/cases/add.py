"""Cases of Add, Sub and Sum."""

from __future__ import annotations

from tests.builders import after_conv, batch_norm, between, node, parse, weights
from tests.matrix.row import EVERY_SHAPE, Row, arithmetic_rows, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def conv_add_constant():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        a = Add (t, k)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 4, 1, 1), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=1)
def constant_minus_value():
    held = {"k": weights(2, 4, 1, 1), "m": weights(3, 4, 1, 1)}
    return after_conv([node("Sub", ["k", "t"], ["s"]), node("Mul", ["s", "m"], ["y"], name="bn")], held)


@case(nodes=3)
def behind_a_sum_of_convolutions():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Conv (x, w2)
        s = Sum (t, u)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(0, ("graph-input",))
def behind_a_sum_with_an_input():
    graph = """(float[N, 3, 8, 8] x, float[N, 4, 6, 6] z) => (float[] y) {
        t = Conv (x, w)
        s = Add (t, z)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=3)
def behind_a_difference():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Conv (x, w2)
        s = Sub (t, u)
        y = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=2)
def a_value_added_to_itself():
    return between(node("Add", ["t", "t"], ["t2"]))


# --- its rows in the operator-context matrix

arithmetic_rows(row, "Add", EVERY_SHAPE)
arithmetic_rows(row, "Sub", EVERY_SHAPE[1:4])
row("Add of negatives", node("Neg", ["c"], ["n"]), one("Add", "n"))
row("Sub of negatives", node("Neg", ["c"], ["n"]), one("Sub", "n"))
row("Sum of one", one("Sum"))
row("Sum of two", one("Sum", "c"))
row("Sum with a constant", one("Sum", "k"), k=some(8, 1, 1))
row("Sum with two constants", one("Sum", "k", "l"), k=some(8, 1, 1), l=some(6))
row("Sum of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Sum", "p", "c"))
