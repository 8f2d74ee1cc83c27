"""Operators that move values about."""

from build import node

from placements import add, one

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
nine = tuple(f"d{axis}" for axis in range(9))
add("Reshape of nine unknown to three", one("Reshape", "k"), shape=("N", 8, *nine), k=[0, 8, -1])
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
    add(f"DepthToSpace of one {mode}", one("DepthToSpace", blocksize=1, mode=mode))
add("DepthToSpace of three", one("DepthToSpace", blocksize=3), shape=(2, 18, 4, 6))
add("SpaceToDepth", one("SpaceToDepth", blocksize=2))
add(
    "SpaceToDepth and back",
    node("SpaceToDepth", ["c"], ["s"], blocksize=2),
    node("DepthToSpace", ["s"], ["d"], blocksize=2),
)
