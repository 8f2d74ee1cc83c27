"""Random networks out of the whole table of rules, one operator at a time; every value's shape is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

Draw = Callable[[int], int]
"""A number from 0 to below the argument: from a generator, or from hypothesis."""


class Network:
    """A network that grows by one random operator at a time; every value's shape is known."""

    def __init__(self, draw: Draw, dtype: str = "float32") -> None:
        self.draw = draw
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": (2, (2, 3, 4, 6)[draw(4)], 6, 6)}
        self.live = ["x"]
        self.count = 0
        self.rng = np.random.default_rng(draw(2**16))

    def grow(self) -> None:
        """One more operator, on a value that is there."""
        recent = self.live[-3:] if self.draw(3) else self.live
        x = recent[self.draw(len(recent))]
        shape = self.shapes[x]
        kinds = IMAGES if len(shape) == 4 else ROWS if len(shape) == 2 else SEQUENCES
        kinds[self.draw(len(kinds))](self, x, shape)

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...] | None, **attributes: Any) -> str:
        """One operator and what it makes."""
        name = f"v{self.count}"
        self.count += 1
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n{self.count}", **attributes))
        if shape is not None:
            self.shapes[name] = shape
            self.live.append(name)
        return name

    def hold(self, data: Any) -> str:
        """One constant: an initializer, or a Constant node."""
        array = np.asarray(data)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        name = f"w{self.count}"
        self.count += 1
        if self.draw(6) == 0:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.held.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        """A random weight that keeps sizes moderate; now and then one that another layer has already."""
        same = [t for t in self.held if tuple(t.dims) == shape]
        if same and self.draw(4) == 0:
            return str(same[self.draw(len(same))].name)
        inner = int(np.prod(shape[1:])) or 1
        return self.hold(self.rng.standard_normal(shape) / np.sqrt(inner))

    def gains(self, size: int) -> np.ndarray[Any, Any]:
        """Gains: mostly of either sign, sometimes all positive, rarely with a zero."""
        values = self.rng.uniform(0.5, 1.5, size)
        choice = self.draw(8)
        if choice < 4:
            return values
        if choice < 7:
            return values * self.rng.choice([-1.0, 1.0], size)
        values[self.draw(size)] = 0.0
        return values

    def model(self) -> ModelProto:
        """What has grown, with its last value and now and then another one as outputs."""
        outputs = [self.live[-1]]
        if self.draw(4) == 0:
            outputs.append(self.live[self.draw(len(self.live))])
        outputs = [name for name in dict.fromkeys(outputs) if name != "x"] or [
            self.add("Identity", ["x"], self.shapes["x"])
        ]
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        infos = [helper.make_tensor_value_info(name, kind, self.shapes[name]) for name in ("x", *outputs)]
        graph = helper.make_graph(self.nodes, "random", infos[:1], infos[1:], self.held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(n: Network, x: str, shape: tuple[int, ...]) -> None:
    channels = shape[1]
    groups = [g for g in (1, 2, channels) if channels % g == 0]
    group = groups[n.draw(len(groups))]
    outer, size, pad, stride = group * (1 + n.draw(3)), (1, 3)[n.draw(2)], n.draw(2), 1 + n.draw(2)
    pads = [pad * (size // 2)] * 4
    height = [(side + 2 * pads[0] - size) // stride + 1 for side in shape[2:]]
    if min(height) < 1:
        return
    inputs = [x, n.weight(outer, channels // group, size, size)]
    if n.draw(2):
        inputs.append(n.hold(n.rng.standard_normal(outer)))
    n.add("Conv", inputs, (shape[0], outer, *height), pads=pads, strides=[stride] * 2, group=group)


def conv_transpose(n: Network, x: str, shape: tuple[int, ...]) -> None:
    group = 2 if shape[1] % 2 == 0 and n.draw(2) else 1
    inner, stride = 1 + n.draw(3), 1 + n.draw(2)
    inputs = [x, n.weight(shape[1], inner, 2, 2)] + (
        [n.hold(n.rng.standard_normal(inner * group))] if n.draw(2) else []
    )
    sides = [stride * (side - 1) + 2 for side in shape[2:]]
    if max(sides) < 16:
        n.add("ConvTranspose", inputs, (shape[0], inner * group, *sides), strides=[stride] * 2, group=group)


def batch_norm(n: Network, x: str, shape: tuple[int, ...]) -> None:
    size = shape[1]
    parts = [n.gains(size), n.rng.normal(size=size), n.rng.normal(size=size), n.rng.uniform(0.3, 2, size)]
    if n.draw(6) == 0:
        parts[1], parts[2] = np.zeros(size), np.zeros(size)
    n.add("BatchNormalization", [x, *map(n.hold, parts)], shape, epsilon=(1e-5, 1e-3)[n.draw(2)])


def scale(n: Network, x: str, shape: tuple[int, ...]) -> None:
    axis = 1 if n.draw(4) else n.draw(len(shape))
    form = [1] * len(shape)
    form[axis] = shape[axis]
    data = n.gains(shape[axis]).reshape(form[1:] if axis else form) if n.draw(4) else np.float64(0.5 + n.draw(3))
    op = ("Mul", "Add", "Sub", "Div")[n.draw(4)]
    if op == "Div":
        data = np.where(np.asarray(data) == 0, 1.0, data)
    inputs = [x, n.hold(data)]
    n.add(op, inputs[::-1] if op in ("Mul", "Add", "Sub") and n.draw(4) == 0 else inputs, shape)


def activation(n: Network, x: str, shape: tuple[int, ...]) -> None:
    op = ("Relu", "LeakyRelu", "Sigmoid", "Clip", "PRelu", "HardSwish", "Tanh", "Neg", "Identity", "Dropout")[
        n.draw(10)
    ]
    if op == "Clip":
        n.add(op, [x, n.hold(np.float64(-0.5)), n.hold(np.float64(1.5))], shape)
    elif op == "PRelu":
        n.add(op, [x, n.hold(n.rng.uniform(0.1, 0.5, (shape[1], *[1] * (len(shape) - 2))))], shape)
    else:
        n.add(op, [x], shape, **({"alpha": 0.2} if op == "LeakyRelu" else {}))


def pool(n: Network, x: str, shape: tuple[int, ...]) -> None:
    choice = n.draw(4)
    if choice == 3 or min(shape[2:]) < 3:
        n.add(("GlobalAveragePool", "GlobalMaxPool")[n.draw(2)], [x], (*shape[:2], 1, 1))
        return
    pad = n.draw(2)
    sides = [(side + 2 * pad - 2) // 2 + 1 for side in shape[2:]]
    more = {"count_include_pad": n.draw(2)} if choice else {}
    op = "AveragePool" if choice else "MaxPool"
    n.add(op, [x], (*shape[:2], *sides), kernel_shape=[2, 2], strides=[2, 2], pads=[pad] * 4, **more)


def join(n: Network, x: str, shape: tuple[int, ...]) -> None:
    same = [name for name in n.live if n.shapes[name] == shape]
    other = same[n.draw(len(same))]
    n.add(("Add", "Sub", "Mul", "Sum", "Max")[n.draw(5)], [x, other], shape)


def concat(n: Network, x: str, shape: tuple[int, ...]) -> None:
    fits = [name for name in n.live if len(n.shapes[name]) == len(shape) and n.shapes[name][2:] == shape[2:]]
    parts = [x, *(fits[n.draw(len(fits))] for _ in range(1 + n.draw(2)))]
    total = sum(n.shapes[name][1] for name in parts)
    if total <= 24:
        n.add("Concat", parts, (shape[0], total, *shape[2:]), axis=(1, 1 - len(shape))[n.draw(2)])


def take(n: Network, x: str, shape: tuple[int, ...]) -> None:
    size = shape[1]
    if n.draw(2) and size > 1:
        start = n.draw(size - 1)
        ends = [n.hold(np.array([value], np.int64)) for value in (start, size, 1)]
        n.add("Slice", [x, *ends], (shape[0], size - start, *shape[2:]))
    else:
        picked = np.array([n.draw(size) for _ in range(1 + n.draw(size))], np.int64)
        n.add("Gather", [x, n.hold(picked)], (shape[0], len(picked), *shape[2:]), axis=1)


def split(n: Network, x: str, shape: tuple[int, ...]) -> None:
    if shape[1] < 2:
        return
    first = 1 + n.draw(shape[1] - 1)
    names = [f"v{n.count}", f"v{n.count + 1}"]
    sizes = n.hold(np.array([first, shape[1] - first], np.int64))
    n.count += 2
    n.nodes.append(helper.make_node("Split", [x, sizes], names, name=f"n{n.count}", axis=1))
    for name, size in zip(names, (first, shape[1] - first), strict=True):
        n.shapes[name] = (shape[0], size, *shape[2:])
        n.live.append(name)


def pad(n: Network, x: str, shape: tuple[int, ...]) -> None:
    if max(shape[2:]) > 12:
        return
    mode = ("constant", "reflect", "edge")[n.draw(3)]
    if mode == "reflect" and min(shape[2:]) < 2:
        return
    inputs = [x, n.hold(np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64))]
    if mode == "constant" and n.draw(2):
        inputs.append(n.hold(np.float64(n.draw(2))))
    n.add("Pad", inputs, (*shape[:2], shape[2] + 1, shape[3] + 1), mode=mode)


def round_trip(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """Channels to the end, something there, and back."""
    last = (shape[0], *shape[2:], shape[1])
    y = n.add("Transpose", [x], last, perm=[0, 2, 3, 1])
    if n.draw(2):
        y = n.add(("Mul", "Add")[n.draw(2)], [y, n.hold(n.gains(shape[1]))], last)
    n.add("Transpose", [y], shape, perm=[0, 3, 1, 2])


def flatten(n: Network, x: str, shape: tuple[int, ...]) -> None:
    total = int(np.prod(shape[1:]))
    if total <= 200:
        if n.draw(2):
            n.add("Flatten", [x], (shape[0], total))
        else:
            n.add("Reshape", [x, n.hold(np.array([0, -1], np.int64))], (shape[0], total))


def mean(n: Network, x: str, shape: tuple[int, ...]) -> None:
    n.add("ReduceMean", [x], shape[:2], axes=[2, 3], keepdims=0)


def sequence(n: Network, x: str, shape: tuple[int, ...]) -> None:
    rows = shape[2] * shape[3]
    n.add("Reshape", [x, n.hold(np.array([0, 0, -1], np.int64))], (shape[0], shape[1], rows))


def branch(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """An If that reads a value from around it."""
    kind = helper.np_dtype_to_tensor_dtype(n.dtype)
    bodies = []
    for op in ("Relu", "Identity"):
        inner = f"v{n.count}_{op}"
        info = helper.make_tensor_value_info(inner, kind, shape)
        bodies.append(helper.make_graph([helper.make_node(op, [x], [inner], name=f"{inner}n")], inner, [], [info]))
    n.add("If", [n.hold(np.array(bool(n.draw(2))))], shape, then_branch=bodies[0], else_branch=bodies[1])


def gemm(n: Network, x: str, shape: tuple[int, ...]) -> None:
    outer, trans = 1 + n.draw(6), n.draw(2)
    weight = n.weight(outer, shape[1]) if trans else n.weight(shape[1], outer)
    inputs = [x, weight] + ([n.hold(n.rng.standard_normal((outer,) if n.draw(2) else (1, outer)))] if n.draw(3) else [])
    more = {"alpha": 0.5, "beta": 2.0} if n.draw(4) == 0 else {}
    n.add("Gemm", inputs, (shape[0], outer), transB=trans, **more)


def matmul(n: Network, x: str, shape: tuple[int, ...]) -> None:
    outer = 1 + n.draw(6)
    y = n.add("MatMul", [x, n.weight(shape[-1], outer)], (*shape[:-1], outer))
    if n.draw(2):
        n.add("Add", [y, n.hold(n.rng.standard_normal(outer))], (*shape[:-1], outer))


def dequantized(n: Network, x: str, shape: tuple[int, ...]) -> None:
    """A convolution whose weights are integers."""
    if n.dtype != np.float32:
        return
    outer = 1 + n.draw(4)
    q = n.hold(n.rng.integers(-100, 100, (outer, shape[1], 1, 1)).astype(np.int8))
    s = n.hold(n.rng.uniform(0.005, 0.02, outer))
    w = n.add("DequantizeLinear", [q, s], None, axis=0)
    n.add("Conv", [x, w], (shape[0], outer, *shape[2:]))


SHARED = [activation, activation, scale, scale, join, concat, take, split]
IMAGES = [
    conv, conv, conv, conv, batch_norm, batch_norm, batch_norm, batch_norm, conv_transpose, pool, pad, round_trip,
    flatten, mean, sequence, branch, dequantized, *SHARED,
]  # fmt: skip
ROWS = [gemm, gemm, gemm, matmul, batch_norm, batch_norm, batch_norm, *SHARED]
SEQUENCES = [matmul, batch_norm, batch_norm, *SHARED]


def network(draw: Draw) -> ModelProto:
    """A random network of 3 to 14 operators; one in eight in float16."""
    n = Network(draw, "float16" if draw(8) == 0 else "float32")
    for _ in range(3 + draw(12)):
        n.grow()
    return n.model()
