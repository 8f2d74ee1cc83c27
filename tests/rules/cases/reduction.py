"""Cases of ReduceMean, ReduceSum, ReduceMax and ReduceMin."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, between, node, positive
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_a_mean_over_space():
    return between(node("ReduceMean", ["t"], ["t2"], axes=[2, 3], keepdims=0))


@case(nodes=2)
def behind_a_sum_over_space():
    return between(node("ReduceSum", ["t", "axes"], ["t2"], keepdims=1), held={"axes": np.array([2, 3])})


@case(nodes=2)
def behind_a_mean_over_channels():
    return between(node("ReduceMean", ["t"], ["t2"], axes=[1]), bn=batch_norm("bn", 1))


@case(nodes=2)
def behind_a_maximum():
    return between(node("ReduceMax", ["t"], ["t2"], axes=[2, 3], keepdims=0), bn=positive("bn", 4))


@case(nodes=2)
def behind_a_minimum():
    return between(node("ReduceMin", ["t"], ["t2"], axes=[2, 3]), bn=positive("bn", 4))


# --- its rows in the operator-context matrix

for op in ("ReduceMean", "ReduceMax", "ReduceMin"):
    for axes in ([2, 3], [1], [-1], [0, 2]):
        for keep in (0, 1):
            row(f"{op} {axes} keepdims {keep}", one(op, axes=axes, keepdims=keep))
    row(f"{op} over all", one(op))
    row(f"{op} by input", one(op, "axes"), opset=18, axes=[2, 3])
    row(f"{op} over nothing", one(op, noop_with_empty_axes=1), opset=18)
    row(f"{op} over no axes", one(op, "axes", noop_with_empty_axes=1), opset=18, axes=[])
    row(f"{op} over all by no axes", one(op, "axes"), opset=18, axes=[])
for axes in ([2, 3], [1], [-1], [0, 2]):
    for keep in (0, 1):
        row(f"ReduceSum {axes} keepdims {keep}", one("ReduceSum", "axes", keepdims=keep), axes=axes)
row("ReduceSum by attribute", one("ReduceSum", axes=[2]), opset=12)
row("ReduceSum of unknown size", one("ReduceSum", "axes"), shape=("N", 8, 4, 6), axes=[0])
row("ReduceSum of unknown size and one", one("ReduceSum", "axes"), shape=("N", 8, 4, 6), axes=[0, 2])
row("ReduceMean of unknown size", one("ReduceMean", axes=[0]), shape=("N", 8, 4, 6))
row("ReduceMean, computed axes",
    node("Shape", ["c"], ["s"], start=1, end=2), node("Mod", ["s", "six"], ["axes"]), one("ReduceMean", "axes"),
    shape=("N", "M", 4, 6), opset=18, six=[6])  # fmt: skip
