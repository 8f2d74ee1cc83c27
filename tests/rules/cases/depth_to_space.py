"""Cases of DepthToSpace and SpaceToDepth."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, between, node, weights
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def depth_to_space():
    return between(node("DepthToSpace", ["t"], ["t2"], blocksize=2), bn=batch_norm("bn", 2), w=weights(1, 8, 3, 3, 3))


@case(nodes=2)
def depth_to_space_crd():
    shuffle = node("DepthToSpace", ["t"], ["t2"], blocksize=2, mode="CRD")
    return between(shuffle, bn=batch_norm("bn", 2), w=weights(1, 8, 3, 3, 3))


@case(nodes=2)
def space_to_depth_with_equal_transforms():
    bn = {name: np.tile(data, 4) for name, data in batch_norm("bn", 4).items()}
    return between(node("SpaceToDepth", ["t"], ["t2"], blocksize=2), bn=bn)


@case(0, ("channel-axis",))
def space_to_depth():
    return between(node("SpaceToDepth", ["t"], ["t2"], blocksize=2), bn=batch_norm("bn", 16))


# --- its rows in the operator-context matrix

for mode in ("DCR", "CRD"):
    row(f"DepthToSpace {mode}", one("DepthToSpace", blocksize=2, mode=mode))
    row(f"DepthToSpace of one {mode}", one("DepthToSpace", blocksize=1, mode=mode))
row("DepthToSpace of three", one("DepthToSpace", blocksize=3), shape=(2, 18, 4, 6))
row("SpaceToDepth", one("SpaceToDepth", blocksize=2))
row(
    "SpaceToDepth and back",
    node("SpaceToDepth", ["c"], ["s"], blocksize=2),
    node("DepthToSpace", ["s"], ["d"], blocksize=2),
)
