"""The networks of the fault corpus: small, with statistics as training leaves them, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnx.helper import np_dtype_to_tensor_dtype

from sample_models.build import bn_node, make, node, tensor
from tests.wrong_folds.evaluate import evaluator

Array = NDArray[np.float64]
SHAPE = (2, 3, 16, 16)
ONE, TWO = [1, 1, 1, 1], [2, 2]


class Net:
    """A network built layer by layer; each layer is evaluated at once, so that statistics fit what arrives."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[Any] = []
        self.held: dict[str, NDArray[Any]] = {}
        self.seen: dict[str, Array] = {"x": self.rng.standard_normal((16, *SHAPE[1:]))}

    def add(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        """One operator, named as its output."""
        made = node(op, list(inputs), [name], name=name, **attributes)
        self.nodes.append(made)
        known = {key: self.seen[key] if key in self.seen else _doubled(self.held[key]) for key in inputs if key}
        self.seen[name] = _evaluated(made, known)
        return name

    def hold(self, name: str, data: NDArray[Any]) -> str:
        """One constant; floats are stored in the network's type."""
        self.held[name] = data.astype(self.dtype) if data.dtype.kind == "f" else data
        return name

    def kaiming(self, name: str, *shape: int, fan_in: int, axis: int = 0) -> str:
        """Initial weights, with channels of very different size along ``axis``."""
        data = self.rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        shape_along = [1] * len(shape)
        shape_along[axis] = shape[axis]
        return self.hold(name, data * np.geomspace(0.15, 3, shape[axis]).reshape(shape_along))

    def vector(self, name: str, size: int, scale: float = 0.2) -> str:
        """A bias."""
        return self.hold(name, self.rng.standard_normal(size) * scale)

    def conv(self, name: str, x: str, outer: int, size: int = 3, *, bias: bool = False, **attributes: Any) -> str:
        """A convolution and its weights."""
        inner = self.seen[x].shape[1] // attributes.get("group", 1)
        inputs = [x, self.kaiming(f"{name}_w", outer, inner, size, size, fan_in=inner * size**2)]
        if bias:
            inputs.append(self.vector(f"{name}_b", outer))
        return self.add(name, "Conv", *inputs, **attributes)

    def bn(self, name: str, x: str, **more: Any) -> str:
        """A BatchNorm with the statistics of what arrives, a little moved; some channels faint, dead or strong."""
        rng, arrived = self.rng, np.moveaxis(self.seen[x], 1, 0).reshape(self.seen[x].shape[1], -1)
        channels = len(arrived)
        scale = rng.uniform(0.5, 1.5, channels) * np.where(np.arange(channels) % 5 == 3, -1, 1)
        bias, var = rng.normal(0, 0.4, channels), np.clip(arrived.var(1), 0.01, 10)
        for kind, held in {"faint": (0.01, 0.02), "dead": (0, -3), "strong": (4, 1)}.items():
            if kind in more:
                channel = more.pop(kind)
                scale[channel], bias[channel] = held
        mean = arrived.mean(1) + rng.normal(0, 0.1, channels) * np.sqrt(var)
        for part, data in zip(
            ("scale", "bias", "mean", "var"), (scale, bias, mean, var * rng.uniform(0.8, 1.25, channels)), strict=True
        ):
            self.hold(f"{name}_{part}", data)
        self.nodes.append(bn_node(x, name, name, **more))
        known = [self.seen[x], *(_doubled(self.held[f"{name}_{p}"]) for p in ("scale", "bias", "mean", "var"))]
        self.seen[name] = _evaluated(self.nodes[-1], dict(zip(self.nodes[-1].input, known, strict=True)))
        return name

    def block(self, name: str, x: str, outer: int, size: int = 3, **more: Any) -> str:
        """Conv, BatchNorm, Relu."""
        own = {key: more.pop(key) for key in ("dead", "faint") if key in more}
        return self.add(f"{name}_relu", "Relu", self.bn(f"{name}_bn", self.conv(name, x, outer, size, **more), **own))

    def gemm(self, name: str, x: str, outer: int, **attributes: Any) -> str:
        """A dense layer with bias; ``transB`` as given."""
        inner, flipped = self.seen[x].shape[1], attributes.get("transB", 0)
        shape = (outer, inner) if flipped else (inner, outer)
        weight = self.kaiming(f"{name}_w", *shape, fan_in=inner, axis=1 - flipped)
        return self.add(name, "Gemm", x, weight, self.vector(f"{name}_b", outer), **attributes)

    def model(self, *outputs: str, opset: int = 17) -> ModelProto:
        """The finished network."""
        kind = np_dtype_to_tensor_dtype(self.dtype)
        ends = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        return make(self.nodes, [tensor("x", SHAPE, kind)], ends, self.held, opset=opset)


def _doubled(data: NDArray[Any]) -> NDArray[Any]:
    return data.astype(np.float64) if data.dtype.kind == "f" else data


def _evaluated(made: Any, known: dict[str, NDArray[Any]]) -> Array:
    inputs = [tensor(key, data.shape, np_dtype_to_tensor_dtype(data.dtype)) for key, data in known.items()]
    outputs = [helper.make_tensor_value_info(made.output[0], 11, None)]
    graph = helper.make_graph([made], "one", inputs, outputs)
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return evaluator(one).run(None, known)[0]


def _body(net: Net) -> str:
    """What the two residual networks share; its output is the logits."""
    x = net.block("stem", "x", 8, pads=ONE, dead=2, faint=6)
    x = net.block("down", x, 16, pads=ONE, strides=TWO, dead=5)
    y = net.bn("inner_bn", net.conv("inner", x, 16, pads=ONE, bias=True), strong=1)
    x = net.add("sum", "Add", y, x)
    x = net.add("six", "Clip", x, net.hold("zero", np.array(0.0)), net.hold("most", np.array(6.0)))
    y = net.bn("wide_bn", net.conv("wide", x, 16, pads=ONE), strong=7, epsilon=1e-3)
    y = net.add("wide_clip", "Clip", y, "zero", "most")
    x = net.add("sum2", "Add", net.bn("narrow_bn", net.conv("narrow", y, 16, 1), faint=9), x)
    x = net.add("leaky", "LeakyRelu", x, alpha=0.1)
    x = net.add("flat", "Flatten", net.add("pool", "GlobalAveragePool", x))
    x = net.add("hidden_relu", "Relu", net.bn("hidden_bn", net.gemm("hidden", x, 12, transB=1), dead=7))
    return net.gemm("logits", x, 6)


def residual(seed: int, dtype: str) -> ModelProto:
    """A residual network that ends in logits."""
    net = Net(seed, dtype)
    return net.model(_body(net))


def classifier(seed: int, dtype: str) -> ModelProto:
    """The same, ending in probabilities."""
    net = Net(seed, dtype)
    return net.model(net.add("probabilities", "Softmax", _body(net), axis=1))


def mixture(seed: int, dtype: str) -> ModelProto:
    """Every other place that a BatchNorm folds into: groups, transposed, dense, behind it, through a Flatten."""
    net = Net(seed, dtype)
    x = net.add("first_relu", "Relu", net.conv("first", net.bn("in_bn", "x"), 8, bias=True))
    x = net.add("pooled", "MaxPool", x, kernel_shape=TWO, strides=TWO)
    x = net.bn("depth_bn", net.conv("depth", x, 8, group=8, pads=ONE))
    x = net.add("depth_leaky", "LeakyRelu", x, alpha=0.2)
    weight = net.kaiming("up_w", 8, 6, 3, 3, fan_in=36, axis=0)
    attributes = {"group": 2, "strides": TWO, "output_padding": [1, 1], "pads": ONE}
    x = net.bn("up_bn", net.add("up", "ConvTranspose", x, weight, net.vector("up_b", 12), **attributes), dead=4)
    x = net.add("up_relu", "Relu", x)
    x = net.block("grouped", x, 12, group=2, auto_pad="SAME_UPPER", strides=TWO, faint=1)
    x = net.block("dilated", x, 12, pads=[2, 2, 2, 2], dilations=TWO)
    y = net.bn("shared_bn", net.conv("shared", x, 12, 1))
    z = net.add("other", "Conv", net.add("negated", "Neg", x), "shared_w")
    x = net.add("joined", "Concat", net.add("shared_relu", "Relu", y), z, axis=1)
    net.held["scales"] = np.array([1, 1, 2, 2], np.float32)
    x = net.add("larger", "Resize", x, "", "scales", mode="nearest")
    x = net.add("mean", "AveragePool", x, kernel_shape=[5, 5], strides=[4, 4], pads=ONE, count_include_pad=0)
    x = net.add("flat", "Flatten", net.bn("flat_bn", x))
    x = net.bn("dense_bn", net.gemm("dense", x, 10, transB=1, alpha=0.5, beta=2.0))
    embedding = net.add("dense_relu", "Relu", x)
    x = net.add("matrix", "MatMul", embedding, net.kaiming("matrix_w", 10, 10, fan_in=10, axis=1))
    x = net.add("matrix_add", "Add", x, net.vector("matrix_b", 10))
    x = net.add("matrix_relu", "Relu", net.bn("matrix_bn", x, dead=8))
    net.gemm("scores", x, 6)
    return net.model("scores", embedding)


def kept(seed: int, dtype: str) -> ModelProto:
    """A network with BatchNorms that must stay: before padding, read twice, before a Sigmoid gate."""
    net = Net(seed, dtype)
    x = net.bn("raw_bn", net.add("raw", "Tanh", "x"))
    x = net.block("stem", x, 8, pads=ONE, dead=3)
    y = net.conv("twice", x, 8, bias=True)
    gate = net.add("gate", "Sigmoid", y)
    x = net.add("gated", "Mul", net.bn("twice_bn", y), gate)
    x = net.add("pool", "MaxPool", x, kernel_shape=TWO, strides=TWO)
    x = net.block("after", x, 16, dead=11, faint=4)
    x = net.add("tall", "AveragePool", x, kernel_shape=[3, 3], strides=TWO, pads=ONE, count_include_pad=1)
    x = net.gemm("scores", net.add("flat", "Flatten", x), 6, transB=1)
    return net.model(net.bn("scores_bn", x))


NETWORKS: dict[str, Callable[[int, str], ModelProto]] = {
    builder.__name__: builder for builder in (residual, classifier, mixture, kept)
}
