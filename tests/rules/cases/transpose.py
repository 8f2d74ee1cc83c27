"""Cases of Transpose."""

from __future__ import annotations

from tests.builders import batch_norm, between, node, parse, weights
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(0, ("per-activation",))
def transposed():
    bn = batch_norm("bn", 6)
    return between(node("Transpose", ["t"], ["t2"], perm=[0, 2, 1, 3]), bn=bn, w=weights(1, 1, 3, 3, 3))


@case(nodes=3)
def channels_last_in_between():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Transpose <perm = [0, 2, 3, 1]> (t)
        v = Mul (u, m)
        s = Add (v, k)
        y = Relu (s)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "m": weights(2, 4), "k": weights(3, 4)}
    return parse(graph, held)


# --- its rows in the operator-context matrix

for perm in ([0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 2, 3], [3, 2, 1, 0], [0, 1, 3, 2]):
    row(f"Transpose {perm}", one("Transpose", perm=perm))
row("Transpose", one("Transpose"))
