"""Cases of AveragePool, MaxPool and their global forms."""

from __future__ import annotations

from tests.builders import between, node, positive
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_an_average_pool():
    return between(node("AveragePool", ["t"], ["t2"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1))


@case(0, ("padding",))
def behind_an_average_pool_that_counts_its_padding():
    pool = node("AveragePool", ["t"], ["t2"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    return between(pool)


@case(nodes=2)
def behind_a_global_average_pool():
    return between(node("GlobalAveragePool", ["t"], ["t2"]))


@case(nodes=2)
def behind_a_max_pool():
    return between(node("MaxPool", ["t"], ["t2"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), bn=positive("bn", 4))


@case(0, ("nonlinear",))
def behind_a_max_pool_with_a_negative_scale():
    bn = positive("bn", 4)
    bn["bn_scale"][2] *= -1
    return between(node("MaxPool", ["t"], ["t2"], kernel_shape=[3, 3]), bn=bn)


@case(nodes=2)
def behind_a_global_max_pool():
    return between(node("GlobalMaxPool", ["t"], ["t2"]), bn=positive("bn", 4))


# --- its rows in the operator-context matrix

for op in ("MaxPool", "AveragePool"):
    for extra in (
        {},
        {"pads": [0, 1, 0, 0]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "VALID"},
        {"ceil_mode": 1, "strides": [2, 2]},
    ):
        row(f"{op} {extra}", one(op, kernel_shape=[2, 2], **extra), shape=(2, 8, 5, 7))
        if op == "AveragePool":
            row(f"{op} {extra} counted", one(op, kernel_shape=[2, 2], count_include_pad=1, **extra), shape=(2, 8, 5, 7))
row("MaxPool, indices read", node("MaxPool", ["c"], ["d", "i"], kernel_shape=[2, 2]), node("Shape", ["i"], ["e"]))
row("MaxPool, indices not read", node("MaxPool", ["c"], ["d", "i"], kernel_shape=[2, 2]))
for op in ("GlobalMaxPool", "GlobalAveragePool"):
    row(op, one(op))
