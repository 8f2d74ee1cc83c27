"""The models that performance is measured on, built from nothing: ``python -m benchmarks.models NAME FILE``.

Real sizes, random weights: what a tool does to a model does not depend on what it was trained for. Large models are
written chunk by chunk: nothing here needs memory for more than one weight.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

BUILDERS: dict[str, Callable[[Path], None]] = {}


def builder(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a model."""
    BUILDERS[function.__name__.replace("_", "-")] = function
    return function


class Net:
    """Nodes and weights, added layer by layer; each method returns the name of what it made.

    With ``data``, weights go to that file, one after the other, instead of into memory.
    """

    def __init__(self, data: Path | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[TensorProto] = []
        self.data = data
        self.file = None if data is None else data.open("wb")
        self.rng = np.random.default_rng(0)

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """One operator."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def hold(self, data: np.ndarray) -> str:
        """One constant."""
        name = f"w{len(self.held)}"
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(data.dtype), dims=data.shape)
        if self.file is None or data.nbytes < 1024 or self.data is None:
            tensor.raw_data = data.tobytes()
        else:
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": self.data.name, "offset": str(self.file.tell()), "length": str(data.nbytes)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            data.tofile(self.file)
        self.held.append(tensor)
        return name

    def weight(self, *shape: int) -> str:
        """A random weight whose outputs stay of the size of its inputs."""
        scale = np.float32(np.sqrt(2 / max(1, int(np.prod(shape[1:])))))
        return self.hold(self.rng.standard_normal(shape, np.float32) * scale)

    def conv(self, x: str, inner: int, outer: int, size: int = 3, stride: int = 1, group: int = 1) -> str:
        """A convolution without bias."""
        w, pads = self.weight(outer, inner // group, size, size), [size // 2] * 4
        return self.add("Conv", x, w, kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2, group=group)

    def bn(self, x: str, channels: int) -> str:
        """A BatchNormalization with trained-looking statistics; its gains are positive."""
        draw = self.rng.uniform
        parts = [draw(0.5, 1.5, channels), draw(-0.2, 0.2, channels), draw(-0.2, 0.2, channels), draw(0.5, 2, channels)]
        return self.add("BatchNormalization", x, *(self.hold(part.astype("f4")) for part in parts))

    def conv_bn(self, x: str, inner: int, outer: int, size: int = 3, stride: int = 1, group: int = 1) -> str:
        """Conv and BatchNormalization."""
        return self.bn(self.conv(x, inner, outer, size, stride, group), outer)

    def save(self, y: str, path: Path, side: int = 224) -> None:
        """The finished network."""
        if self.file is not None:
            self.file.close()
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, side, side])
        self.nodes[-1].output[0] = "y"
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self.nodes, "net", [x], [output], self.held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        assert y == self.nodes[-1].name


def head(net: Net, x: str, channels: int, path: Path, side: int = 224) -> None:
    """Pooling and a classifier of 1000 classes."""
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.save(net.add("Gemm", x, net.weight(1000, channels), net.weight(1000), transB=1), path, side)


@builder
def resnet50(path: Path) -> None:
    """102 MB in one file, 53 BatchNorms."""
    net = Net()
    x = net.add("Relu", net.conv_bn("x", 3, 64, 7, 2))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            s = stride if block == 0 else 1
            y = net.add("Relu", net.conv_bn(x, inner, width, 1))
            y = net.add("Relu", net.conv_bn(y, width, width, 3, s))
            y = net.conv_bn(y, width, width * 4, 1)
            shortcut = x if block else net.conv_bn(x, inner, width * 4, 1, s)
            x, inner = net.add("Relu", net.add("Add", y, shortcut)), width * 4
    head(net, x, inner, path)


@builder
def mobilenet(path: Path) -> None:
    """MobileNetV2's shape: depthwise convolutions, inverted residuals; 14 MB, 52 BatchNorms."""
    net = Net()
    x, inner = net.add("Relu", net.conv_bn("x", 3, 32, 3, 2)), 32
    for expand, width, depth, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(depth):
            s, wide = stride if block == 0 else 1, inner * expand
            y = x if expand == 1 else net.add("Relu", net.conv_bn(x, inner, wide, 1))
            y = net.add("Relu", net.conv_bn(y, wide, wide, 3, s, group=wide))
            y = net.conv_bn(y, wide, width, 1)
            x, inner = net.add("Add", x, y) if s == 1 and inner == width else y, width
    head(net, net.add("Relu", net.conv_bn(x, inner, 1280, 1)), 1280, path)


@builder
def densenet(path: Path) -> None:
    """DenseNet-121's shape: BatchNorm and Relu before each convolution, concatenated; 32 MB, 121 BatchNorms."""
    net = Net()
    x = net.add("Relu", net.conv_bn("x", 3, 64, 7, 2))
    x, channels = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 64
    for number, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            y = net.conv(net.add("Relu", net.bn(x, channels)), channels, 128, 1)
            y = net.conv(net.add("Relu", net.bn(y, 128)), 128, 32)
            x, channels = net.add("Concat", x, y, axis=1), channels + 32
        if number < 3:
            y = net.conv(net.add("Relu", net.bn(x, channels)), channels, channels // 2, 1)
            x, channels = net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), channels // 2
    head(net, net.add("Relu", net.bn(x, channels)), channels, path)


def wide(path: Path, layers: int, width: int = 1024) -> None:
    """So many convolutions of 3 x 3 with BatchNorms, their weights (38 MB each at a width of 1024) beside the model."""
    net = Net(path.with_name(path.name + ".data"))
    x = net.add("Relu", net.conv_bn("x", 3, width))
    for _ in range(layers):
        x = net.add("Relu", net.conv_bn(x, width, width))
    head(net, x, width, path, side=8)


@builder
def external_2_5gb(path: Path) -> None:
    """2.5 GB of external data, 67 BatchNorms."""
    wide(path, 66)


@builder
def external_10gb(path: Path) -> None:
    """10 GB of external data, 67 BatchNorms."""
    wide(path, 66, 2048)


def main() -> None:
    """Build one."""
    name, target = sys.argv[1:]
    BUILDERS[name](Path(target))


if __name__ == "__main__":
    main()
