"""Cases of Add, Sub and Sum."""

from __future__ import annotations

from tests.builders import (
    ANY,
    IMAGE,
    after_conv,
    batch_norm,
    between,
    bn_node,
    make,
    node,
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
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Add", ["t", "k"], ["a"], name="bias"),
        bn_node("a", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 4, 1, 1), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=1)
def constant_minus_value():
    held = {"k": weights(2, 4, 1, 1), "m": weights(3, 4, 1, 1)}
    return after_conv([node("Sub", ["k", "t"], ["s"]), node("Mul", ["s", "m"], ["y"], name="bn")], held)


@case(nodes=3)
def behind_a_sum_of_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Sum", ["t", "u"], ["s"], name="sum"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(0, ("graph-input",))
def behind_a_sum_with_an_input():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Add", ["t", "z"], ["s"], name="sum"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE, tensor("z", ["N", 4, 6, 6])], [ANY], held)


@case(nodes=3)
def behind_a_difference():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Sub", ["t", "u"], ["s"], name="difference"),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


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
