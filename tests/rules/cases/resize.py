"""Cases of Resize and Upsample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.builders import between, node
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_a_resize():
    resize = node("Resize", ["t", "", "scales"], ["t2"], mode="cubic")
    return between(resize, held={"scales": np.array([1, 1, 2, 1.5], np.float32)})


@case(nodes=2)
def behind_an_upsample():
    up = node("Upsample", ["t", "scales"], ["t2"], mode="nearest")
    return between(up, held={"scales": np.array([1, 1, 2, 2], np.float32)}, opset=9)


# --- its rows in the operator-context matrix


def scales(*numbers: float) -> NDArray[np.float32]:
    """The scales of a resize."""
    return np.array(numbers, "f4")


for factors in ((1, 1, 2, 2), (1, 1, 1, 2), (1, 2, 1, 1), (2, 1, 1, 1), (1, 1, 1, 1), (1, 1, 0.5, 1)):
    row(f"Resize {factors}", one("Resize", "", "k", mode="nearest"), k=scales(*factors))
for name, sizes in (
    ("twice", [2, 8, 8, 12]),
    ("one", [2, 8, 4, 12]),
    ("channels", [2, 16, 4, 6]),
    ("fewer channels", [2, 4, 4, 6]),
):
    row(f"Resize to {name}", one("Resize", "", "", "k", mode="nearest"), k=sizes)
for policy in ("stretch", "not_larger", "not_smaller"):
    row(f"Resize {policy}", one("Resize", "", "", "k", mode="nearest", keep_aspect_ratio_policy=policy),
        opset=18, k=[2, 8, 8, 8])  # fmt: skip
    row(f"Resize {policy} of axes", one("Resize", "", "", "k", mode="nearest", keep_aspect_ratio_policy=policy,
        axes=[2, 3]), opset=18, k=[8, 12])  # fmt: skip
for axes, factors in (([2, 3], (2, 2)), ([3], (2,)), ([1], (2,)), ([-1], (2,)), ([0, 3], (1, 2))):
    row(f"Resize axes {axes}", one("Resize", "", "k", mode="nearest", axes=axes), opset=18, k=scales(*factors))
row("Resize of unknown batch", one("Resize", "", "k", mode="nearest"), shape=("N", 8, 4, 6), k=scales(1, 1, 2, 2))
row("Resize of unknown channels", one("Resize", "", "", "k", mode="nearest"), shape=(2, "C", 4, 6), k=[2, 8, 8, 12])
row("Resize that extrapolates", one("Resize", "roi", "k", mode="linear",
    coordinate_transformation_mode="tf_crop_and_resize"),
    roi=scales(0, 0, 0, 0, 1, 1, 2, 2), k=scales(1, 1, 2, 2))  # fmt: skip
row("Resize linear", one("Resize", "", "k", mode="linear"), k=scales(1, 1, 2, 2))
row("Resize cubic", one("Resize", "", "k", mode="cubic"), k=scales(1, 1, 2, 2))
row("Resize of opset 10", one("Resize", "k", mode="nearest"), opset=10, k=scales(1, 1, 2, 2))
row("Resize of opset 10, channels", one("Resize", "k", mode="nearest"), opset=10, k=scales(1, 2, 1, 1))
row("Resize of opset 11", one("Resize", "roi", "k", mode="nearest"), opset=11,
    roi=np.zeros(0, "f4"), k=scales(1, 1, 2, 2))  # fmt: skip
row("Upsample of opset 9", one("Upsample", "k", mode="nearest"), opset=9, k=scales(1, 1, 2, 2))
row("Upsample by attribute", one("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]), opset=8)
row("Upsample by attribute, batch", one("Upsample", mode="nearest", scales=[2.0, 1.0, 1.0, 1.0]), opset=8)
