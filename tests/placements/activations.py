"""Activations, and operators that hand a value on."""

import numpy as np
from build import node

from placements import add, one, some

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
    if low <= high:  # the attributes of what onnxruntime runs
        add(f"Clip {name} by attributes", one("Clip", min=low, max=high), opset=10)
for opset in (11, 12):
    add(
        f"Clip of opset {opset}",
        one("Clip", "low", "high"),
        opset=opset,
        low=np.array(-1, "f4"),
        high=np.array(1, "f4"),
    )
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
add("Dropout, no mask", node("Dropout", ["c"], ["d", ""]))
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
