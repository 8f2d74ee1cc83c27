"""Cases of Add, Sub, Sum and Mean."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto

from tests.builders import (
    ANY,
    after_conv,
    batch_norm,
    between,
    exact_batch_norm,
    make,
    node,
    parse,
    tensor,
    weights,
)
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


def _of_two_convolutions(op: str, *held: str, opset: int = 17, **constants: Any) -> ModelProto:
    """Return ``op`` of two Convs and constants, then the BatchNorm."""
    graph = f"""(float[N, 3, 8, 8] x) => (float[] y) {{
        t = Conv (x, w)
        u = Conv (x, w2)
        a = {op} ({", ".join(("t", *held[:1], "u", *held[1:]))})
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    parts = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4), **constants}
    return parse(graph, parts, opset=opset)


@case(nodes=3)
def behind_a_sum_of_two_values_and_a_constant():
    return _of_two_convolutions("Sum", "k", k=weights(3, 4, 1, 1))


@case(nodes=3)
def behind_a_sum_of_two_values_and_two_constants():
    return _of_two_convolutions("Sum", "k", "l", k=weights(3, 4, 1, 1), l=weights(4, 1))


@case(nodes=3)
def behind_a_mean_of_two_values():
    return _of_two_convolutions("Mean")


@case(nodes=3)
def behind_a_mean_of_two_values_and_two_constants():
    return _of_two_convolutions("Mean", "k", "l", k=weights(3, 1, 1, 1, 6), l=weights(4, 4, 1, 1))


@case(nodes=3)
def behind_a_mean_of_opset_6_in_a_model_of_opset_7():
    return _of_two_convolutions("Mean", opset=7)


@case(0, ("channel-axis",))
def behind_a_sum_whose_constant_enlarges_it():
    """The values have one entry where the constant has six."""
    graph = """(float[N, 3, 1, 6] x) => (float[] y) {
        t = Conv (x, w)
        u = Conv (x, w2)
        a = Sum (t, u, k)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 1, 1), "w2": weights(2, 4, 3, 1, 1), "k": weights(3, 6, 1), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=4)
def a_batch_norm_in_front_of_a_mean():
    """The offset goes on, divided by two, to the bias behind; a scale would not."""
    held, norm = exact_batch_norm(1.0, 0.7)
    nodes = [node("Elu", ["x"], ["s"]), norm, node("Abs", ["x"], ["z"]), node("Mean", ["b", "z"], ["m"])]
    held["w"] = weights(1, 5, 4, 1, 1)
    return make([*nodes, node("Conv", ["m", "w"], ["y"])], [tensor("x", ["N", 4, 6, 6])], [ANY], held)


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
row(
    "Sum of two values and a constant",
    node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]),
    one("Sum", "k", "p"),
    k=some(8, 1, 1),
)
row("Mean of one", one("Mean"))
row("Mean of two", one("Mean", "c"))
row("Mean with a constant", one("Mean", "k"), k=some(8, 1, 1))
row("Mean of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Mean", "p", "c"))
row("Mean stretched", node("ReduceMean", ["c"], ["m"], axes=[2]), one("Mean", "m"))
