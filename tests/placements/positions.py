"""Operators that combine positions: pools, reductions, resizing, padding."""

import numpy as np
from build import node
from numpy.typing import NDArray

from placements import add, one

for op in ("MaxPool", "AveragePool"):
    for extra in (
        {},
        {"pads": [0, 1, 0, 0]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "VALID"},
        {"ceil_mode": 1, "strides": [2, 2]},
    ):
        add(f"{op} {extra}", one(op, kernel_shape=[2, 2], **extra), shape=(2, 8, 5, 7))
        if op == "AveragePool":
            add(f"{op} {extra} counted", one(op, kernel_shape=[2, 2], count_include_pad=1, **extra), shape=(2, 8, 5, 7))
add("MaxPool, indices read", node("MaxPool", ["c"], ["d", "i"], kernel_shape=[2, 2]), node("Shape", ["i"], ["e"]))
add("MaxPool, indices not read", node("MaxPool", ["c"], ["d", "i"], kernel_shape=[2, 2]))
for op in ("GlobalMaxPool", "GlobalAveragePool"):
    add(op, one(op))
for op in ("ReduceMean", "ReduceMax", "ReduceMin"):
    for axes in ([2, 3], [1], [-1], [0, 2]):
        for keep in (0, 1):
            add(f"{op} {axes} keepdims {keep}", one(op, axes=axes, keepdims=keep))
    add(f"{op} over all", one(op))
    add(f"{op} by input", one(op, "axes"), opset=18, axes=[2, 3])
    add(f"{op} over nothing", one(op, noop_with_empty_axes=1), opset=18)
    add(f"{op} over no axes", one(op, "axes", noop_with_empty_axes=1), opset=18, axes=[])
    add(f"{op} over all by no axes", one(op, "axes"), opset=18, axes=[])
for axes in ([2, 3], [1], [-1], [0, 2]):
    for keep in (0, 1):
        add(f"ReduceSum {axes} keepdims {keep}", one("ReduceSum", "axes", keepdims=keep), axes=axes)
add("ReduceSum by attribute", one("ReduceSum", axes=[2]), opset=12)
add("ReduceSum of unknown size", one("ReduceSum", "axes"), shape=("N", 8, 4, 6), axes=[0])
add("ReduceSum of unknown size and one", one("ReduceSum", "axes"), shape=("N", 8, 4, 6), axes=[0, 2])
add("ReduceMean of unknown size", one("ReduceMean", axes=[0]), shape=("N", 8, 4, 6))
add("ReduceMean, computed axes",
    node("Shape", ["c"], ["s"], start=1, end=2), node("Mod", ["s", "six"], ["axes"]), one("ReduceMean", "axes"),
    shape=("N", "M", 4, 6), opset=18, six=[6])  # fmt: skip


def scales(*numbers: float) -> NDArray[np.float32]:
    """The scales of a resize."""
    return np.array(numbers, "f4")


for factors in ((1, 1, 2, 2), (1, 1, 1, 2), (1, 2, 1, 1), (2, 1, 1, 1), (1, 1, 1, 1), (1, 1, 0.5, 1)):
    add(f"Resize {factors}", one("Resize", "", "k", mode="nearest"), k=scales(*factors))
for name, sizes in (
    ("twice", [2, 8, 8, 12]),
    ("one", [2, 8, 4, 12]),
    ("channels", [2, 16, 4, 6]),
    ("fewer channels", [2, 4, 4, 6]),
):
    add(f"Resize to {name}", one("Resize", "", "", "k", mode="nearest"), k=sizes)
for policy in ("stretch", "not_larger", "not_smaller"):
    add(f"Resize {policy}", one("Resize", "", "", "k", mode="nearest", keep_aspect_ratio_policy=policy),
        opset=18, k=[2, 8, 8, 8])  # fmt: skip
    add(f"Resize {policy} of axes", one("Resize", "", "", "k", mode="nearest", keep_aspect_ratio_policy=policy,
        axes=[2, 3]), opset=18, k=[8, 12])  # fmt: skip
for axes, factors in (([2, 3], (2, 2)), ([3], (2,)), ([1], (2,)), ([-1], (2,)), ([0, 3], (1, 2))):
    add(f"Resize axes {axes}", one("Resize", "", "k", mode="nearest", axes=axes), opset=18, k=scales(*factors))
add("Resize of unknown batch", one("Resize", "", "k", mode="nearest"), shape=("N", 8, 4, 6), k=scales(1, 1, 2, 2))
add("Resize of unknown channels", one("Resize", "", "", "k", mode="nearest"), shape=(2, "C", 4, 6), k=[2, 8, 8, 12])
add("Resize that extrapolates", one("Resize", "roi", "k", mode="linear",
    coordinate_transformation_mode="tf_crop_and_resize"),
    roi=scales(0, 0, 0, 0, 1, 1, 2, 2), k=scales(1, 1, 2, 2))  # fmt: skip
add("Resize linear", one("Resize", "", "k", mode="linear"), k=scales(1, 1, 2, 2))
add("Resize cubic", one("Resize", "", "k", mode="cubic"), k=scales(1, 1, 2, 2))
add("Resize of opset 10", one("Resize", "k", mode="nearest"), opset=10, k=scales(1, 1, 2, 2))
add("Resize of opset 10, channels", one("Resize", "k", mode="nearest"), opset=10, k=scales(1, 2, 1, 1))
add("Resize of opset 11", one("Resize", "roi", "k", mode="nearest"), opset=11,
    roi=np.zeros(0, "f4"), k=scales(1, 1, 2, 2))  # fmt: skip
add("Upsample of opset 9", one("Upsample", "k", mode="nearest"), opset=9, k=scales(1, 1, 2, 2))
add("Upsample by attribute", one("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]), opset=8)
add("Upsample by attribute, batch", one("Upsample", mode="nearest", scales=[2.0, 1.0, 1.0, 1.0]), opset=8)

for mode in ("constant", "edge", "reflect"):
    for pads in (
        [0, 0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 2],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ):
        add(f"Pad {mode} {pads}", one("Pad", "pads", mode=mode), pads=pads)
        add(f"Pad {mode} {pads} by attribute", one("Pad", mode=mode, pads=pads), opset=10)
for value in (0.0, 0.75):
    add(f"Pad with {value}", one("Pad", "pads", "k"), pads=[0, 0, 1, 1, 0, 0, 1, 1], k=np.array(value, "f4"))
    add(f"Pad with {value} by attribute", one("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=value), opset=10)
for opset in (11, 12):
    add(
        f"Pad of opset {opset}",
        one("Pad", "pads", "k"),
        opset=opset,
        pads=[0, 0, 1, 1, 0, 0, 1, 1],
        k=np.array(0.75, "f4"),
    )
add("Pad of axes", one("Pad", "pads", "", "axes"), opset=18, pads=[1, 1], axes=[3])
add("Pad, computed pads", node("Shape", ["c"], ["s"]), node("Concat", ["s", "s"], ["t"], axis=0),
    node("Mod", ["t", "k"], ["pads"]), one("Pad", "pads", mode="edge"), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
add("Pad, value of many numbers", one("Pad", "pads", "v"), pads=[0, 0, 1, 1, 0, 0, 1, 1], v=np.array(0.5, "f4"))
