"""Cases of MatMul, with and without an Add behind it."""

from __future__ import annotations

import numpy as np

from tests.builders import (
    ANY,
    ahead,
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


@case(nodes=2)
def before_matmul_and_add():
    nodes = [node("MatMul", ["b", "w"], ["m"], name="dense"), node("Add", ["m", "c"], ["y"], name="bias")]
    return ahead(*nodes, held={"w": weights(1, 6, 5), "c": weights(2, 5)}, channels=6, x=tensor("x", ["N", 6]))


@case(nodes=2)
def before_matmul_alone_becomes_an_add():
    return ahead(
        node("MatMul", ["b", "w"], ["y"], name="dense"),
        held={"w": weights(1, 6, 5)},
        channels=6,
        x=tensor("x", ["N", 6]),
    )


@case(nodes=4)
def matmul_of_rank_3_between_transposes():
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="dense"),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        bn_node("t", "b", "bn"),
        node("Transpose", ["b"], ["y"], perm=[0, 2, 1]),
    ]
    return make(nodes, [tensor("x", ["N", 7, 6])], [ANY], {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(0, ("channel-axis",))
def matmul_reshape_batch_norm_on_another_axis():
    """onnxruntime folds this, wrongly: N and the number of channels merely agree."""
    nodes = [
        node("MatMul", ["x", "w"], ["t"], name="dense"),
        node("Reshape", ["t", "shape"], ["u"]),
        bn_node("u", "y", "bn"),
    ]
    held = {"w": weights(1, 6, 4), "shape": np.array([2, 4, 4]), **batch_norm("bn", 4)}
    return make(nodes, [tensor("x", [2, 4, 6])], [ANY], held)


# --- its rows in the operator-context matrix

for name, shape, inner in (
    ("right", (6, 5), (2, 8, 4, 6)),
    ("blocks", (1, 1, 6, 5), (2, 8, 4, 6)),
    ("rows", (6, 5), (4, 6)),
):
    row(f"MatMul {name}", one("MatMul", "k"), shape=inner, k=some(*shape))
row("MatMul left", node("MatMul", ["k", "c"], ["d"]), k=some(5, 4))
row("MatMul left, blocks", node("MatMul", ["k", "c"], ["d"]), k=some(1, 5, 4))
row(
    "MatMul left and a bias",
    node("MatMul", ["k", "c"], ["m"]),
    node("Add", ["m", "l"], ["d"]),
    k=some(5, 4),
    l=some(5, 1),
)
row("MatMul of many matrices", one("MatMul", "k"), k=some(8, 6, 5))
row("MatMul by a vector", one("MatMul", "k"), k=some(6))
row("MatMul of a vector", one("MatMul", "k"), shape=(6,), k=some(6, 5))
row("MatMul of more axes", one("MatMul", "k"), shape=(4, 6), k=some(1, 6, 5))
row("MatMul of itself", node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]), one("MatMul", "t"))
row("MatMul and a bias", node("MatMul", ["c", "k"], ["m"]), node("Add", ["m", "l"], ["d"]), k=some(6, 5), l=some(5))
