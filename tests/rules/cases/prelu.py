"""Cases of PRelu."""

from __future__ import annotations

import numpy as np

from tests.builders import between, node, weights, without_offset
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_a_prelu_with_mixed_signs():
    bn = without_offset("bn", 4)
    bn["bn_scale"] *= np.array([1, -1, 1, -1], np.float32)
    slope = np.abs(weights(3, 4, 1, 1)) + np.float32(0.1)
    return between(node("PRelu", ["t", "slope"], ["t2"]), bn=bn, held={"slope": slope})


@case(0, ("nonlinear",))
def behind_a_prelu_with_a_negative_slope():
    bn = without_offset("bn", 4)
    bn["bn_scale"] *= np.array([1, -1, 1, -1], np.float32)
    return between(node("PRelu", ["t", "slope"], ["t2"]), bn=bn, held={"slope": np.full((4, 1, 1), -0.5, np.float32)})


# --- its rows in the operator-context matrix

for name, slope in (
    ("0.2", np.full((), 0.2)), ("channels", np.abs(some(8, 1, 1))), ("signs", some(8, 1, 1)), ("0", np.zeros(1)),
    ("1", np.ones(1)),
    ("columns", np.abs(some(6))), ("zeros among", np.array([0, 1, 0.5, 0, 2, 0.1, 0.3, 0.4]).reshape(8, 1, 1)),
):  # fmt: skip
    row(f"PRelu {name}", one("PRelu", "k"), k=np.asarray(slope, "f4"))
