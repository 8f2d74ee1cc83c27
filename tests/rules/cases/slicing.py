"""Cases of Slice, Split and Gather."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, between, node, parse, weights
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(2, nodes=2)
def two_halves_of_a_split():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w)
        u, v = Split <axis = 1> (t, sizes)
        y = BatchNormalization (u, bn1_scale, bn1_bias, bn1_mean, bn1_var)
        z = BatchNormalization (v, bn2_scale, bn2_bias, bn2_mean, bn2_var)
    }"""
    held = {"w": weights(1, 6, 3, 3, 3), "sizes": np.array([4, 2]), **batch_norm("bn1", 4), **batch_norm("bn2", 2, 3)}
    return parse(graph, held)


@case(nodes=3)
def behind_a_slice_of_the_channels():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w)
        u = Slice (t, from, to, axis)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
        z = Slice (t, to, end, axis)
    }"""
    held = {"w": weights(1, 6, 3, 3, 3), "from": np.array([0]), "to": np.array([4]), "end": np.array([6])}
    return parse(graph, {**held, "axis": np.array([1]), **batch_norm("bn", 4)})


@case(nodes=2)
def behind_a_slice_of_the_image():
    held = {"from": np.array([1, 1]), "to": np.array([4, -1]), "axes": np.array([2, 3]), "steps": np.array([1, 2])}
    return between(node("Slice", ["t", "from", "to", "axes", "steps"], ["t2"]), held=held)


@case(nodes=2)
def behind_a_slice_backwards():
    held = {"from": np.array([-1]), "to": np.array([-(2**31)]), "axes": np.array([1]), "steps": np.array([-1])}
    return between(node("Slice", ["t", "from", "to", "axes", "steps"], ["t2"]), held=held)


@case(nodes=2)
def behind_a_gather_of_channels():
    return between(node("Gather", ["t", "order"], ["t2"], axis=1), held={"order": np.array([2, 0, 3, 1])})


@case(0, ("channel-axis",))
def a_channel_gathered_twice():
    return between(node("Gather", ["t", "order"], ["t2"], axis=1), held={"order": np.array([2, 0, 2, 1])})


# --- its rows in the operator-context matrix

for axis in (0, 1, -1):
    for picked in (1, [0, 1], [1, 0, 1], [[0, 1], [1, 0]], -1, [0]):
        row(f"Gather {picked} of {axis}", one("Gather", "k", axis=axis), k=np.array(picked, "i8"))
row("Gather all", one("Gather", "k", axis=1), k=[7, 6, 5, 4, 3, 2, 1, 0])
row("Gather of unknown size", one("Gather", "k"), shape=("N", 8, 4, 6), k=np.array([0]))
row("Gather, computed", node("Shape", ["c"], ["s"], start=0, end=1), node("Mod", ["s", "k"], ["i"]),
    one("Gather", "i", axis=1), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
for starts, ends, axes, steps in (
    ([0], [4], [1], [1]), ([1], [7], [1], [2]), ([-1], [-9], [1], [-1]), ([0, 1], [4, 3], [1, 2], [1, 1]),
    ([2], [100], [-1], [1]), ([1], [3], [2], [1]), ([0, 1], [1, 3], [0, 3], [1, 1]),
    ([3], [4], [1], [1]), ([-4], [-1], [1], [1]), ([0], [8], [1], [1]),
):  # fmt: skip
    row(f"Slice {starts} {ends} {axes} {steps}", one("Slice", "s", "e", "a", "t"), s=starts, e=ends, a=axes, t=steps)
row("Slice without axes", one("Slice", "s", "e"), s=[0, 2], e=[1, 6])
row("Slice without steps", one("Slice", "s", "e", "a"), s=[2], e=[6], a=[1])
row("Slice by attribute", one("Slice", starts=[2], ends=[6], axes=[1]), opset=9)
row("Slice by attribute, without axes", one("Slice", starts=[0, 2], ends=[2, 6]), opset=9)
row("Slice of unknown size", one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[0], e=[1], a=[0])
row("Slice of unknown batch", one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[1], e=[5], a=[1])
row("Slice, computed", node("Shape", ["c"], ["e"], start=0, end=1), one("Slice", "s", "e", "a"),
    shape=("N", 8, 4, 6), s=[0], a=[1])  # fmt: skip
row("Slice, computed axes", node("Shape", ["c"], ["t"], start=0, end=1), node("Mod", ["t", "k"], ["a"]),
    one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[0], e=[1], k=[2])  # fmt: skip
row("Slice, computed steps", node("Shape", ["c"], ["t"], start=0, end=1), one("Slice", "s", "e", "a", "t"),
    shape=("N", 8, 4, 6), s=[0], e=[6], a=[1])  # fmt: skip
row("Slice and add", node("Slice", ["c", "s", "e", "a"], ["p"]), node("Slice", ["c", "e", "z", "a"], ["q"]),
    node("Add", ["p", "q"], ["d"]), s=[0], e=[4], z=[8], a=[1])  # fmt: skip
for axis in (0, 1, 2, -1):
    row(
        f"Split {axis} and join",
        node("Split", ["c"], ["p", "q"], axis=axis),
        node("Concat", ["p", "q"], ["d"], axis=axis),
    )
    row(
        f"Split {axis} and swap",
        node("Split", ["c"], ["p", "q"], axis=axis),
        node("Concat", ["q", "p"], ["d"], axis=axis),
    )
    row(f"Split {axis} and add", node("Split", ["c"], ["p", "q"], axis=axis), node("Add", ["p", "q"], ["d"]))
    row(f"Split {axis}, one read", node("Split", ["c"], ["d", "q"], axis=axis))
row("Split without axis", node("Split", ["c"], ["p", "q"]), node("Add", ["p", "q"], ["d"]))
row(
    "Split unevenly", node("Split", ["c", "k"], ["p", "q"], axis=1), node("Concat", ["q", "p"], ["d"], axis=1), k=[3, 5]
)
row(
    "Split by attribute",
    node("Split", ["c"], ["p", "q"], axis=1, split=[3, 5]),
    node("Concat", ["q", "p"], ["d"], axis=1),
    opset=12,
)
row("Split into three", node("Split", ["c"], ["p", "q", "r"], axis=1, num_outputs=3),
    node("Concat", ["r", "q", "p"], ["d"], axis=1), opset=18)  # fmt: skip
row("Split of unknown size", node("Split", ["c", "k"], ["d", "q"], axis=0), shape=("N", 8, 4, 6), k=[1, 1])
row("Split, a part to a branch", node("Split", ["c"], ["p", "q"], axis=1), node("Sigmoid", ["q"], ["s"]),
    node("Concat", ["p", "s"], ["d"], axis=1))  # fmt: skip
