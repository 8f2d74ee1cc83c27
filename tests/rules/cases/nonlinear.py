"""Cases of operators that no transform passes."""

from __future__ import annotations

from tests.builders import between, node
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(0, ("nonlinear",))
def behind_a_sigmoid():
    return between(node("Sigmoid", ["t"], ["t2"]))


# --- its rows in the operator-context matrix

for op in ("Sigmoid", "Softmax"):
    row(op, one(op))
