"""Operators with weights."""

import numpy as np
from build import batch_norm, bn_node, node

from placements import add, one, some

for name, shape, inner in (
    ("right", (6, 5), (2, 8, 4, 6)),
    ("blocks", (1, 1, 6, 5), (2, 8, 4, 6)),
    ("rows", (6, 5), (4, 6)),
):
    add(f"MatMul {name}", one("MatMul", "k"), shape=inner, k=some(*shape))
add("MatMul left", node("MatMul", ["k", "c"], ["d"]), k=some(5, 4))
add("MatMul left, blocks", node("MatMul", ["k", "c"], ["d"]), k=some(1, 5, 4))
add(
    "MatMul left and a bias",
    node("MatMul", ["k", "c"], ["m"]),
    node("Add", ["m", "l"], ["d"]),
    k=some(5, 4),
    l=some(5, 1),
)
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
for op, checks in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    add(
        op,
        node(op, ["c", "w", "r"], ["y", "d"], hidden_size=5),
        shape=(3, 2, 6),
        w=some(1, checks * 5, 6),
        r=some(1, checks * 5, 5),
    )
    add(f"{op} with B", node(op, ["c", "w", "r", "b"], ["y", "d"], hidden_size=5), shape=(3, 2, 6),
        w=some(1, checks * 5, 6), r=some(1, checks * 5, 5), b=some(1, checks * 10))  # fmt: skip
