"""Operators between two affine ones, for ``test_placements.py``: each with what its rule tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from build import batch_norm, bn_node, node
from numpy.typing import NDArray
from onnx import NodeProto

Dim = int | str


@dataclass(frozen=True)
class Between:
    """Some nodes from ``c`` to ``d``, the constants that they read, and the shape of ``c``."""

    name: str
    nodes: Sequence[NodeProto]
    held: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    shape: tuple[Dim, ...] = (2, 8, 4, 6)
    opset: int = 17


EVERY: list[Between] = []


def add(
    name: str,
    *nodes: NodeProto,
    shape: tuple[Dim, ...] = (2, 8, 4, 6),
    opset: int = 17,
    **held: NDArray[np.generic] | Sequence[int],
) -> None:
    """Register one; plain lists are integers."""
    arrays = {key: value if isinstance(value, np.ndarray) else np.array(value, "i8") for key, value in held.items()}
    EVERY.append(Between(name, nodes, arrays, shape, opset))


def some(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    """Numbers between 0.5 and 2, half of them negative."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape), "f4")


def one(op: str, *more: str, **attributes: object) -> NodeProto:
    """A node from ``c`` and further inputs to ``d``."""
    return node(op, ["c", *more], ["d"], **attributes)


# --- arithmetic

for op in ("Add", "Sub", "Mul", "Div"):
    every = ((), (1,), (6,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 4, 1), (4, 6), (2, 8, 4, 6), (2, 1, 1, 1))
    for shape in every if op in ("Add", "Mul") else every[1:4]:
        add(f"{op} {shape}", one(op, "k"), k=some(*shape))
    add(f"{op} to a constant", node(op, ["k", "c"], ["d"]), k=some(8, 1, 1))
    add(f"{op} of more axes", one(op, "k"), k=some(1, 1, 1, 1, 1))
    add(f"{op} that enlarges", one(op, "k"), shape=(2, 8, 1, 6), k=some(4, 1))
    add(f"{op} of unknown batch", one(op, "k"), shape=("N", 8, 4, 6), k=some(8, 1, 1))
    add(f"{op} that may enlarge", one(op, "k"), shape=("N", 8, 4, 6), k=some(2, 8, 1, 1))
    add(f"{op} of itself", one(op, "c"))
    add(f"{op} stretched", node("ReduceMean", ["c"], ["m"], axes=[2]), one(op, "m"))
    add(f"{op} stretched, first", node("ReduceMean", ["c"], ["m"], axes=[1]), node(op, ["m", "c"], ["d"]))
    add(f"{op} of a branch", node("Sigmoid", ["c"], ["s"]), one(op, "s"))
for value in (0.0, np.inf):
    add(f"Mul by {value}", one("Mul", "k"), k=np.array([value, *[1.0] * 7], "f4").reshape(8, 1, 1))
add("Add of negatives", node("Neg", ["c"], ["n"]), one("Add", "n"))
add("Sub of negatives", node("Neg", ["c"], ["n"]), one("Sub", "n"))
add("Neg", one("Neg"))
add("Sum of one", one("Sum"))
add("Sum of two", one("Sum", "c"))
add("Sum with a constant", one("Sum", "k"), k=some(8, 1, 1))
add("Sum with two constants", one("Sum", "k", "l"), k=some(8, 1, 1), l=some(6))
add("Sum of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Sum", "p", "c"))

# --- pools, reductions, resizing, padding

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
for name, sizes in (("twice", [2, 8, 8, 12]), ("one", [2, 8, 4, 12]), ("channels", [2, 16, 4, 6])):
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
add("Pad of axes", one("Pad", "pads", "", "axes"), opset=18, pads=[1, 1], axes=[3])
add("Pad, computed pads", node("Shape", ["c"], ["s"]), node("Concat", ["s", "s"], ["t"], axis=0),
    node("Mod", ["t", "k"], ["pads"]), one("Pad", "pads", mode="edge"), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
add("Pad, value of many numbers", one("Pad", "pads", "v"), pads=[0, 0, 1, 1, 0, 0, 1, 1], v=np.array(0.5, "f4"))

# --- layout

for perm in ([0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 2, 3], [3, 2, 1, 0], [0, 1, 3, 2]):
    add(f"Transpose {perm}", one("Transpose", perm=perm))
add("Transpose", one("Transpose"))
for target in (
    [2, 8, 24], [2, 32, 6], [16, 4, 6], [2, 192], [2, 2, 4, 4, 6], [2, 8, 2, 2, 6], [384], [2, 8, 1, 4, 6],
    [2, 6, 4, 8], [0, 0, -1], [-1, 6], [2, 1, 8, 4, 6, 1], [8, 2, 4, 6], [1, 2, 8, 24],
):  # fmt: skip
    add(f"Reshape {target}", one("Reshape", "k"), k=target)
for target in ([0, 0, -1], [-1, 24], [-1, 6], [0, 2, 4, 4, 6], [-1, 8, 4, 6], [1, -1, 4, 6]):
    add(f"Reshape {target} of unknown batch", one("Reshape", "k"), shape=("N", 8, 4, 6), k=target)
for target in ([0, 0, -1], [-1, 48], [0, -1, 6], [0, 8, -1]):
    add(f"Reshape {target} of unknown height", one("Reshape", "k"), shape=(2, 8, "H", 6), k=target)
    add(f"Reshape {target} of much unknown", one("Reshape", "k"), shape=("N", 8, "H", 6), k=target)
for axis in range(-4, 5):
    add(f"Flatten {axis}", one("Flatten", axis=axis))
add("Flatten of unknown batch", one("Flatten"), shape=("N", 8, 4, 6))
add("Squeeze", one("Squeeze", "k"), shape=(2, 8, 1, 6), k=[2])
add("Squeeze by attribute", one("Squeeze", axes=[2]), shape=(2, 8, 1, 6), opset=12)
add("Squeeze all", one("Squeeze"), shape=(1, 8, 1, 6))
add("Unsqueeze", one("Unsqueeze", "k"), k=[1])
add("Unsqueeze several", one("Unsqueeze", "k"), k=[-1, 0])
for target in ([2, 8, 4, 6], [3, 2, 8, 4, 6], [1, 1, 1, 1, 1, 6]):
    add(f"Expand {target}", one("Expand", "k"), k=target)
add("Expand of one row", one("Expand", "k"), shape=(2, 8, 1, 6), k=[2, 8, 4, 6])
add("Expand of one channel", one("Expand", "k"), shape=(2, 1, 4, 6), k=[2, 8, 4, 6])
add("Expand of vectors", one("Expand", "k"), shape=(8, 1), k=[2, 8, 6])
add("Expand of one row, many times", one("Expand", "k"), shape=(1, 8, 4, 6), k=[3, 2, 8, 4, 6])
for mode in ("DCR", "CRD"):
    add(f"DepthToSpace {mode}", one("DepthToSpace", blocksize=2, mode=mode))
add("DepthToSpace of three", one("DepthToSpace", blocksize=3), shape=(2, 18, 4, 6))
add("SpaceToDepth", one("SpaceToDepth", blocksize=2))
add(
    "SpaceToDepth and back",
    node("SpaceToDepth", ["c"], ["s"], blocksize=2),
    node("DepthToSpace", ["s"], ["d"], blocksize=2),
)

# --- blocks

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

# --- activations

for op in ("Relu", "Sigmoid", "Softmax", "Abs"):
    add(op, one(op))
for alpha in (0.0, 0.1, 1.0, -0.5):
    add(f"LeakyRelu {alpha}", one("LeakyRelu", alpha=alpha))
for name, slope in (
    ("0.2", np.full((), 0.2)), ("channels", np.abs(some(8, 1, 1))), ("signs", some(8, 1, 1)), ("0", np.zeros(1)),
    ("1", np.ones(1)),
    ("columns", np.abs(some(6))), ("zeros among", np.array([0, 1, 0.5, 0, 2, 0.1, 0.3, 0.4]).reshape(8, 1, 1)),
):  # fmt: skip
    add(f"PRelu {name}", one("PRelu", "k"), k=np.asarray(slope, "f4"))
for name, low, high in (("0 6", 0.0, 6.0), ("-1 1", -1.0, 1.0), ("0 0", 0.0, 0.0), ("2 1", 2.0, 1.0)):
    add(f"Clip {name}", one("Clip", "low", "high"), low=np.array(low, "f4"), high=np.array(high, "f4"))
    add(f"Clip {name} by attributes", one("Clip", min=low, max=high), opset=10)
add("Clip from below", one("Clip", "low"), low=np.array(0.0, "f4"))
add("Clip from above", one("Clip", "", "high"), high=np.array(0.5, "f4"))
add("Clip from below by attribute", one("Clip", min=0.25), opset=10)
add("Clip from above by attribute", one("Clip", max=0.25), opset=10)
add("Clip of nothing", one("Clip"))
add("Clip, computed", node("ReduceMean", ["c"], ["low"], keepdims=0), one("Clip", "low"))

# --- what hands on

add("Identity", one("Identity"))
add("Dropout", one("Dropout"))
add("Dropout, mask read", node("Dropout", ["c"], ["d", "m"]), node("Shape", ["m"], ["e"]))
add("Dropout, mask not read", node("Dropout", ["c"], ["d", "m"]))
add("Shape aside", node("Shape", ["c"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), one("Add", "z"))
add(
    "Size aside",
    node("Size", ["c"], ["s"]),
    node("Cast", ["s"], ["f"], to=1),
    node("Mul", ["f", "f"], ["e"]),
    one("Identity"),
)
add("CastLike aside", node("CastLike", ["k", "c"], ["e"]), one("Identity"), k=np.array([1, 2], "i8"))
add("CastLike", node("CastLike", ["c", "k"], ["d"]), k=some(1))
add("Cast", one("Cast", to=1))

# --- linear operators

for name, shape, inner in (
    ("right", (6, 5), (2, 8, 4, 6)),
    ("blocks", (1, 1, 6, 5), (2, 8, 4, 6)),
    ("rows", (6, 5), (4, 6)),
):
    add(f"MatMul {name}", one("MatMul", "k"), shape=inner, k=some(*shape))
add("MatMul left", node("MatMul", ["k", "c"], ["d"]), k=some(5, 4))
add("MatMul left, blocks", node("MatMul", ["k", "c"], ["d"]), k=some(1, 5, 4))
add("MatMul of many matrices", one("MatMul", "k"), k=some(8, 6, 5))
add("MatMul by a vector", one("MatMul", "k"), k=some(6))
add("MatMul of a vector", one("MatMul", "k"), shape=(6,), k=some(6, 5))
add("MatMul of more axes", one("MatMul", "k"), shape=(4, 6), k=some(1, 6, 5))
add("MatMul of itself", node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]), one("MatMul", "t"))
add("MatMul and a bias", node("MatMul", ["c", "k"], ["m"]), node("Add", ["m", "l"], ["d"]), k=some(6, 5), l=some(5))
for name, attributes, c in (
    ("", {}, None), ("with C", {}, (5,)), ("scaled", {"alpha": 0.5, "beta": 2.0}, (5,)),
    ("rows", {"beta": 0.5}, (4, 1)),
    ("row", {}, (1, 5)), ("full", {}, (4, 5)), ("single", {}, (1,)), ("scalar", {}, ()),
    ("without C's part", {"beta": 0.0}, (5,)),
    ("transB", {"transB": 1}, (5,)), ("transA", {"transA": 1}, (5,)),
):  # fmt: skip
    held = {} if c is None else {"l": some(*c)}
    matrix = some(5, 6) if "transB" in attributes else some(6, 5)
    add(
        f"Gemm {name}",
        one("Gemm", "k", *held, **attributes),
        shape=(6, 4) if name == "transA" else (4, 6),
        k=matrix,
        **held,
    )
for rank in (1, 2, 3):
    size = (2, 4, *(5, 6, 7)[:rank])
    add(f"Conv of {rank}", one("Conv", "k"), shape=size, k=some(6, 4, *[2] * rank))
    add(
        f"Conv of {rank}, padded",
        one("Conv", "k", "l", pads=[1] * 2 * rank),
        shape=size,
        k=some(6, 4, *[2] * rank),
        l=some(6),
    )
    add(f"ConvTranspose of {rank}", one("ConvTranspose", "k", "l"), shape=size, k=some(4, 6, *[2] * rank), l=some(6))
    add(f"ConvTranspose of {rank}, groups", one("ConvTranspose", "k", group=2), shape=size, k=some(4, 3, *[2] * rank))
for groups in (2, 4, 8):
    add(f"Conv, {groups} groups", one("Conv", "k", group=groups), k=some(16, 8 // groups, 1, 1))
for size in (4, 5, None):
    add(f"Conv SAME_LOWER of {size}", one("Conv", "k", auto_pad="SAME_LOWER", strides=[2, 2]),
        shape=(2, 4, size or "H", 4), k=some(6, 4, 2, 2))  # fmt: skip
add("Conv of unknown rank", node("Reshape", ["c", "s"], ["r"]), node("Conv", ["r", "k"], ["d"], auto_pad="SAME_UPPER"),
    s=[2, 8, 4, 6], k=some(6, 8, 1, 1))  # fmt: skip
add("Conv VALID", one("Conv", "k", auto_pad="VALID"), k=some(6, 8, 3, 3))
add("InstanceNormalization", one("InstanceNormalization", "k", "l"), k=some(8), l=some(8))
add("BatchNormalization", bn_node("c", "d", "bn"), **batch_norm("bn", 8))
add("BatchNormalization per activation", bn_node("c", "d", "bn", spatial=0), opset=8,
    **{key: np.broadcast_to(row[:, None, None], (8, 4, 6)) for key, row in batch_norm("bn", 8).items()})  # fmt: skip
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    add(
        op,
        node(op, ["c", "w", "r"], ["y", "d"], hidden_size=5),
        shape=(3, 2, 6),
        w=some(1, gates * 5, 6),
        r=some(1, gates * 5, 5),
    )
    add(f"{op} with B", node(op, ["c", "w", "r", "b"], ["y", "d"], hidden_size=5), shape=(3, 2, 6),
        w=some(1, gates * 5, 6), r=some(1, gates * 5, 5), b=some(1, gates * 10))  # fmt: skip
