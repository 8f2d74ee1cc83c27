"""Cases of Pad."""

from __future__ import annotations

import numpy as np

from tests.builders import between, node, positive, without_offset
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_a_pad_that_reflects():
    return between(
        node("Pad", ["t", "pads"], ["t2"], mode="reflect"), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    )


@case(0, ("padding",))
def behind_a_pad_with_zeros():
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])})


@case(nodes=2)
def behind_a_pad_with_zeros_without_offset():
    bn = without_offset("bn", 4)
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


@case(nodes=2)
def behind_a_pad_with_one_transform_for_all_channels():
    bn = {name: np.full(4, data[0]) for name, data in positive("bn", 4).items()}
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


# --- its rows in the operator-context matrix

for mode in ("constant", "edge", "reflect"):
    for pads in (
        [0, 0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 2],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ):
        row(f"Pad {mode} {pads}", one("Pad", "pads", mode=mode), pads=pads)
        row(f"Pad {mode} {pads} by attribute", one("Pad", mode=mode, pads=pads), opset=10)
for value in (0.0, 0.75):
    row(f"Pad with {value}", one("Pad", "pads", "k"), pads=[0, 0, 1, 1, 0, 0, 1, 1], k=np.array(value, "f4"))
    row(f"Pad with {value} by attribute", one("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=value), opset=10)
for opset in (11, 12):
    row(
        f"Pad of opset {opset}",
        one("Pad", "pads", "k"),
        opset=opset,
        pads=[0, 0, 1, 1, 0, 0, 1, 1],
        k=np.array(0.75, "f4"),
    )
row("Pad of axes", one("Pad", "pads", "", "axes"), opset=18, pads=[1, 1], axes=[3])
row("Pad, computed pads", node("Shape", ["c"], ["s"]), node("Concat", ["s", "s"], ["t"], axis=0),
    node("Mod", ["t", "k"], ["pads"]), one("Pad", "pads", mode="edge"), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
row("Pad, value of many numbers", one("Pad", "pads", "v"), pads=[0, 0, 1, 1, 0, 0, 1, 1], v=np.array(0.5, "f4"))
