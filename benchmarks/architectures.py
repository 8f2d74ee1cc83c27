"""Small networks in the shape of well-known families, built as ONNX: the same operators, few channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper

from sample_models.build import batch_norm, bn_node, make, node, tensor, weights

FAMILIES: dict[str, Callable[[], ModelProto]] = {}


def family(function: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
    """Register a network."""
    FAMILIES[function.__name__.replace("_", " ")] = function
    return function


class Net:
    """Nodes and weights, added layer by layer; each method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.held: dict[str, np.ndarray] = {}
        self.count = 0

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """One operator."""
        self.count += 1
        name = f"{op.lower()}{self.count}"
        self.nodes.append(node(op, list(inputs), [name], name=name, **attributes))
        return name

    def hold(self, data: np.ndarray) -> str:
        """One constant."""
        self.count += 1
        self.held[f"k{self.count}"] = data
        return f"k{self.count}"

    def conv(
        self, x: str, inner: int, outer: int, size: int = 3, *, pad: bool = True, group: int = 1, **more: object
    ) -> str:
        """A convolution without bias, padded to keep the size."""
        w = self.hold(weights(self.count, outer, inner // group, size, size) / np.float32(size))
        return self.add("Conv", x, w, pads=[size // 2 if pad else 0] * 4, group=group, **more)

    def bn(self, x: str, channels: int, *, positive: bool = False) -> str:
        """A BatchNormalization with trained-looking statistics."""
        self.count += 1
        held = batch_norm(f"b{self.count}", channels, self.count)
        if positive:
            held[f"b{self.count}_scale"] = np.abs(held[f"b{self.count}_scale"])
        self.held |= held
        self.nodes.append(bn_node(x, f"bn{self.count}", f"b{self.count}"))
        return f"bn{self.count}"

    def model(self, y: str, shape: tuple[int, ...] = (1, 3, 16, 16)) -> ModelProto:
        """The finished network."""
        self.nodes.append(node("Identity", [y], ["y"]))
        return make(
            self.nodes, [tensor("x", shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], self.held
        )


@family
def ResNet() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.add("Relu", n.bn(n.conv("x", 3, 8), 8))
    for _ in range(3):
        y = n.add("Relu", n.bn(n.conv(x, 8, 8), 8))
        x = n.add("Relu", n.add("Add", n.bn(n.conv(y, 8, 8), 8), x))
    return n.model(n.add("GlobalAveragePool", x))


@family
def ResNet_v2() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.conv("x", 3, 8)
    for _ in range(3):
        y = n.conv(n.add("Relu", n.bn(x, 8, positive=True)), 8, 8)
        y = n.conv(n.add("Relu", n.bn(y, 8)), 8, 8)
        x = n.add("Add", x, y)
    return n.model(n.conv(n.add("Relu", n.bn(x, 8, positive=True)), 8, 4, 1))


@family
def ArcFace_IResNet() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.conv("x", 3, 8)
    for _ in range(3):
        y = n.bn(n.conv(n.bn(x, 8), 8, 8), 8)
        y = n.add("PRelu", y, n.hold(np.abs(weights(n.count, 8, 1, 1)) + np.float32(0.1)))
        x = n.add("Add", x, n.bn(n.conv(y, 8, 8), 8))
    x = n.add("Flatten", n.add("Dropout", n.bn(n.conv(x, 8, 4, 1), 4)))
    x = n.add("Gemm", x, n.hold(weights(9, 4 * 256, 6)), n.hold(weights(8, 6)))
    return n.model(n.bn(x, 6))


@family
def MobileNet() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.bn(n.conv("x", 3, 8), 8)
    zero, six = n.hold(np.float32(0)), n.hold(np.float32(6))
    for _ in range(3):
        y = n.add("Clip", n.bn(n.conv(x, 8, 16, 1), 16), zero, six)
        y = n.add("Clip", n.bn(n.conv(y, 16, 16, group=16), 16), zero, six)
        x = n.add("Add", x, n.bn(n.conv(y, 16, 8, 1), 8))
    return n.model(x)


@family
def DenseNet() -> ModelProto:  # noqa: N802
    n = Net()
    x, channels = n.add("Relu", n.bn(n.conv("x", 3, 8), 8)), 8
    for _ in range(3):
        y = n.conv(n.add("Relu", n.bn(x, channels, positive=True)), channels, 8, 1)
        y = n.conv(n.add("Relu", n.bn(y, 8)), 8, 4)
        x, channels = n.add("Concat", x, y, axis=1), channels + 4
    return n.model(n.add("GlobalAveragePool", n.add("Relu", n.bn(x, channels, positive=True))))


@family
def Inception() -> ModelProto:  # noqa: N802
    n = Net()
    branches = [n.conv("x", 3, 4, 1), n.conv("x", 3, 6), n.conv("x", 3, 2, 5)]
    return n.model(n.add("Relu", n.bn(n.add("Concat", *branches, axis=1), 12)))


def fan(count: int, join: str = "Sum") -> ModelProto:
    """So many BatchNorms of one convolution, joined by ``join``: one Sum or Concat, Adds in a row, a Conv after each.

    Nobody's network, and so none of the families: what planning costs grows with it, and should not grow faster.
    """
    n = Net()
    x = n.conv("x", 3, 8)
    ends = [n.bn(x, 8) for _ in range(count)]
    if join == "Conv":
        ends = [n.add("Relu", n.conv(end, 8, 4)) for end in ends]
    if join == "Add":
        y = ends[0]
        for end in ends[1:]:
            y = n.add("Add", y, end)
        return n.model(y)
    return n.model(n.add("Concat", *ends, axis=1) if join == "Concat" else n.add("Sum", *ends))


@family
def ShuffleNet() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.bn(n.conv("x", 3, 8), 8)
    apart, together = n.hold(np.array([1, 2, 4, 16, 16])), n.hold(np.array([1, 8, 16, 16]))
    for _ in range(2):
        y = n.conv(x, 8, 8, 1, group=2)
        y = n.add("Reshape", n.add("Transpose", n.add("Reshape", y, apart), perm=[0, 2, 1, 3, 4]), together)
        x = n.add("Relu", n.bn(y, 8))
    return n.model(x)


@family
def U_Net() -> ModelProto:  # noqa: N802
    n = Net()
    skip = n.add("Relu", n.bn(n.conv("x", 3, 8), 8))
    x = n.add("Relu", n.bn(n.conv(n.add("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2]), 8, 8), 8))
    x = n.add("ConvTranspose", x, n.hold(weights(5, 8, 4, 2, 2)), strides=[2, 2], group=2)
    return n.model(n.conv(n.add("Concat", skip, n.bn(x, 8), axis=1), 16, 2, 1))


@family
def Keras_dense() -> ModelProto:  # noqa: N802
    n = Net()
    x = "x"
    for _ in range(3):
        x = n.add("Add", n.add("MatMul", x, n.hold(weights(n.count, 12, 12))), n.hold(weights(n.count, 12)))
        x = n.add("Add", n.add("Mul", x, n.hold(weights(n.count, 12))), n.hold(weights(n.count, 12)))
        x = n.add("Relu", x)
    return n.model(x, (4, 12))


@family
def Keras_NHWC() -> ModelProto:  # noqa: N802
    n = Net()
    x = "x"
    for _ in range(2):
        y = n.add("Transpose", n.conv(n.add("Transpose", x, perm=[0, 3, 1, 2]), 4, 4), perm=[0, 2, 3, 1])
        x = n.add("Relu", n.add("Add", n.add("Mul", y, n.hold(weights(n.count, 4))), n.hold(weights(n.count, 4))))
    return n.model(x, (1, 8, 8, 4))


@family
def PointNet() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.add("Transpose", "x", perm=[0, 2, 1])
    for inner, outer in ((3, 8), (8, 8)):
        x = n.add("Relu", n.bn(n.add("Conv", x, n.hold(weights(n.count, outer, inner, 1))), outer))
    x = n.bn(n.add("ReduceMax", x, axes=[2], keepdims=0), 8)
    return n.model(n.add("Gemm", x, n.hold(weights(3, 8, 4)), n.hold(weights(4, 4))), (2, 20, 3))


@family
def DeepSpeech() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.add("Transpose", n.bn("x", 6), perm=[2, 0, 1])
    x = n.add("LSTM", x, n.hold(weights(1, 1, 32, 6)), n.hold(weights(2, 1, 32, 8)), hidden_size=8)
    return n.model(x, (2, 6, 10))


@family
def re_ID_BNNeck() -> ModelProto:  # noqa: N802
    n = Net()
    x = n.add("Relu", n.bn(n.conv("x", 3, 8), 8))
    x = n.add("Flatten", n.bn(n.add("GlobalAveragePool", x), 8))
    return n.model(n.add("Gemm", x, n.hold(weights(3, 8, 4))))


@family
def int8_weights() -> ModelProto:
    n = Net()
    x, inner = "x", 3
    for _ in range(2):
        integers = np.random.default_rng(n.count).integers(-127, 128, (8, inner, 3, 3)).astype("int8")
        scale = n.hold(np.full(8, 0.01, "f4"))
        w = n.add("DequantizeLinear", n.hold(integers), scale, n.hold(np.zeros(8, "int8")), axis=0)
        x, inner = n.add("Relu", n.bn(n.add("Conv", x, w, pads=[1] * 4), 8)), 8
    return n.model(x)
