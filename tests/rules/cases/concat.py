"""Cases of Concat."""

from __future__ import annotations

from tests.builders import (
    ANY,
    IMAGE,
    batch_norm,
    bn_node,
    make,
    node,
    tensor,
    weights,
)
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=3)
def behind_a_concat_of_convolutions():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Concat", ["t", "u"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 2, 3, 3, 3), **batch_norm("bn", 6)}
    return make(nodes, [IMAGE], [ANY], held)


@case(nodes=2)
def behind_a_concat_with_a_constant():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Concat", ["t", "k"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "k": weights(2, 1, 2, 6, 6), **batch_norm("bn", 6)}
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [ANY], held)


@case(nodes=3)
def behind_a_concat_along_the_height():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv1"),
        node("Conv", ["x", "w2"], ["u"], name="conv2"),
        node("Concat", ["t", "u"], ["s"], name="concat", axis=2),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


@case(0, ("graph-input",))
def behind_a_concat_with_an_input():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Concat", ["t", "z"], ["s"], name="concat", axis=1),
        bn_node("s", "y", "bn"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 6)}
    return make(nodes, [IMAGE, tensor("z", ["N", 2, 6, 6])], [ANY], held)


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
