"""Operators that join and take apart."""

import numpy as np
from build import node

from placements import add, one, some

for axis in (0, 1, -1):
    for picked in (1, [0, 1], [1, 0, 1], [[0, 1], [1, 0]], -1, [0]):
        add(f"Gather {picked} of {axis}", one("Gather", "k", axis=axis), k=np.array(picked, "i8"))
add("Gather all", one("Gather", "k", axis=1), k=[7, 6, 5, 4, 3, 2, 1, 0])
add("Gather of unknown size", one("Gather", "k"), shape=("N", 8, 4, 6), k=np.array([0]))
add("Gather, computed", node("Shape", ["c"], ["s"], start=0, end=1), node("Mod", ["s", "k"], ["i"]),
    one("Gather", "i", axis=1), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
for starts, ends, axes, steps in (
    ([0], [4], [1], [1]), ([1], [7], [1], [2]), ([-1], [-9], [1], [-1]), ([0, 1], [4, 3], [1, 2], [1, 1]),
    ([2], [100], [-1], [1]), ([1], [3], [2], [1]), ([0, 1], [1, 3], [0, 3], [1, 1]),
    ([3], [4], [1], [1]), ([-4], [-1], [1], [1]), ([0], [8], [1], [1]),
):  # fmt: skip
    add(f"Slice {starts} {ends} {axes} {steps}", one("Slice", "s", "e", "a", "t"), s=starts, e=ends, a=axes, t=steps)
add("Slice without axes", one("Slice", "s", "e"), s=[0, 2], e=[1, 6])
add("Slice without steps", one("Slice", "s", "e", "a"), s=[2], e=[6], a=[1])
add("Slice by attribute", one("Slice", starts=[2], ends=[6], axes=[1]), opset=9)
add("Slice by attribute, without axes", one("Slice", starts=[0, 2], ends=[2, 6]), opset=9)
add("Slice of unknown size", one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[0], e=[1], a=[0])
add("Slice of unknown batch", one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[1], e=[5], a=[1])
add("Slice, computed", node("Shape", ["c"], ["e"], start=0, end=1), one("Slice", "s", "e", "a"),
    shape=("N", 8, 4, 6), s=[0], a=[1])  # fmt: skip
add("Slice, computed axes", node("Shape", ["c"], ["t"], start=0, end=1), node("Mod", ["t", "k"], ["a"]),
    one("Slice", "s", "e", "a"), shape=("N", 8, 4, 6), s=[0], e=[1], k=[2])  # fmt: skip
add("Slice, computed steps", node("Shape", ["c"], ["t"], start=0, end=1), one("Slice", "s", "e", "a", "t"),
    shape=("N", 8, 4, 6), s=[0], e=[6], a=[1])  # fmt: skip
add("Slice and add", node("Slice", ["c", "s", "e", "a"], ["p"]), node("Slice", ["c", "e", "z", "a"], ["q"]),
    node("Add", ["p", "q"], ["d"]), s=[0], e=[4], z=[8], a=[1])  # fmt: skip
for axis in (0, 1, 2, -1, -3):
    add(f"Concat {axis}", one("Concat", "c", axis=axis))
    shape = [2, 8, 4, 6]
    shape[axis] = 3
    add(f"Concat with a constant {axis}", one("Concat", "k", axis=axis), k=some(*shape))
    add(
        f"Concat with two constants {axis}",
        node("Concat", ["k", "c", "l"], ["d"], axis=axis),
        k=some(*shape),
        l=some(*shape, seed=4),
    )
    add(f"Concat with a branch {axis}", node("Sigmoid", ["c"], ["s"]), one("Concat", "s", axis=axis))
add("Concat of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Concat", "p", "c", axis=1))
add("Concat of unknown sizes", one("Concat", "c", axis=0), shape=("N", 8, 4, 6))
add("Concat of unknown channels", one("Concat", "c", axis=1), shape=(2, "C", 4, 6))
for axis in (0, 1, 2, -1):
    add(
        f"Split {axis} and join",
        node("Split", ["c"], ["p", "q"], axis=axis),
        node("Concat", ["p", "q"], ["d"], axis=axis),
    )
    add(
        f"Split {axis} and swap",
        node("Split", ["c"], ["p", "q"], axis=axis),
        node("Concat", ["q", "p"], ["d"], axis=axis),
    )
    add(f"Split {axis} and add", node("Split", ["c"], ["p", "q"], axis=axis), node("Add", ["p", "q"], ["d"]))
    add(f"Split {axis}, one read", node("Split", ["c"], ["d", "q"], axis=axis))
add("Split without axis", node("Split", ["c"], ["p", "q"]), node("Add", ["p", "q"], ["d"]))
add(
    "Split unevenly", node("Split", ["c", "k"], ["p", "q"], axis=1), node("Concat", ["q", "p"], ["d"], axis=1), k=[3, 5]
)
add(
    "Split by attribute",
    node("Split", ["c"], ["p", "q"], axis=1, split=[3, 5]),
    node("Concat", ["q", "p"], ["d"], axis=1),
    opset=12,
)
add("Split into three", node("Split", ["c"], ["p", "q", "r"], axis=1, num_outputs=3),
    node("Concat", ["r", "q", "p"], ["d"], axis=1), opset=18)  # fmt: skip
add("Split of unknown size", node("Split", ["c", "k"], ["d", "q"], axis=0), shape=("N", 8, 4, 6), k=[1, 1])
add("Split, a part to a branch", node("Split", ["c"], ["p", "q"], axis=1), node("Sigmoid", ["q"], ["s"]),
    node("Concat", ["p", "s"], ["d"], axis=1))  # fmt: skip
