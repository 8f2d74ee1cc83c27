"""Small networks with the operators that simplifiers rewrite: what exporters write of attention, gates, views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from benchmarks.architectures import Net

NETWORKS: dict[str, Callable[[], ModelProto]] = {}

POSITIONS, WIDTH, HEADS = 16, 12, 3


def network(function: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
    """Register a network."""
    NETWORKS[function.__name__.replace("_", " ")] = function
    return function


def dense(net: Net, x: str, inner: int, outer: int) -> str:
    """A MatMul and an Add: what exporters write of a Linear of more than two axes."""
    w = net.hold(np.random.default_rng(net.count).normal(0, inner**-0.5, (inner, outer)).astype("f4"))
    b = net.hold(np.random.default_rng(net.count).normal(0, 0.1, outer).astype("f4"))
    return net.add("Add", net.add("MatMul", x, w), b)


def norm(net: Net, x: str) -> str:
    """A LayerNormalization of the last axis."""
    scale = net.hold(np.random.default_rng(net.count).uniform(0.5, 1.5, WIDTH).astype("f4"))
    return net.add("LayerNormalization", x, scale, net.hold(np.full(WIDTH, 0.1, "f4")), axis=-1, epsilon=1e-5)


def tokens(net: Net) -> str:
    """A Conv with its BatchNorm, and its positions as a sequence (1, POSITIONS, WIDTH)."""
    x = net.bn(net.conv("x", 3, WIDTH, strides=[4, 4]), WIDTH)
    flat = net.add("Reshape", x, net.hold(np.array([1, WIDTH, POSITIONS])))
    return net.add("Transpose", flat, perm=[0, 2, 1])


def attention(net: Net, x: str, encoded: str) -> str:
    """Several heads over a sequence; queries and keys are made of the ``encoded`` one."""
    shape = net.hold(np.array([1, POSITIONS, HEADS, -1]))
    heads = [net.add("Reshape", dense(net, y, WIDTH, WIDTH), shape) for y in (encoded, encoded, x)]
    q, v = (net.add("Transpose", heads[k], perm=[0, 2, 1, 3]) for k in (0, 2))
    k = net.add("Transpose", heads[1], perm=[0, 2, 3, 1])
    scores = net.add("Mul", net.add("MatMul", q, k), net.hold(np.float32(0.5)))
    mixed = net.add("Transpose", net.add("MatMul", net.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    back = net.add("Reshape", mixed, net.hold(np.array([1, POSITIONS, WIDTH])))
    return dense(net, back, WIDTH, WIDTH)


@network
def encoder_with_computed_positions() -> ModelProto:
    """DETR's: sines of positions that the model computes are added before queries and keys, not before values."""
    net = Net()
    x = tokens(net)
    steps = net.add("Range", *(net.hold(np.float32(k)) for k in (0, POSITIONS, 1)))
    angles = net.add("Mul", net.add("Unsqueeze", steps, net.hold(np.array([1]))), net.hold(np.ones((1, WIDTH), "f4")))
    encoded = net.add("Add", x, net.add("Unsqueeze", net.add("Sin", angles), net.hold(np.array([0]))))
    x = norm(net, net.add("Add", x, attention(net, x, encoded)))
    hidden = net.add("Relu", dense(net, x, WIDTH, 2 * WIDTH))
    return net.model(norm(net, net.add("Add", x, dense(net, hidden, 2 * WIDTH, WIDTH))))


@network
def mlp_with_a_gate() -> ModelProto:
    """Linear, SiLU, Linear over a sequence."""
    net = Net()
    hidden = dense(net, tokens(net), WIDTH, 2 * WIDTH)
    return net.model(dense(net, net.add("Mul", hidden, net.add("Sigmoid", hidden)), 2 * WIDTH, WIDTH))


@network
def hard_swish_and_squeeze_excitation() -> ModelProto:
    """MobileNetV3's: HardSwish and a gate of HardSigmoid; channels that fill no block of onnxruntime's."""
    net = Net()
    x = net.add("HardSwish", net.bn(net.conv("x", 3, 16), 16))
    x = net.add("HardSwish", net.bn(net.conv(x, 16, 24, 1), 24))
    x = net.add("HardSwish", net.bn(net.conv(x, 24, 24, group=24), 24))
    gate = net.add("Relu", net.conv(net.add("GlobalAveragePool", x), 24, 8, 1))
    gate = net.add("HardSigmoid", net.conv(gate, 8, 24, 1), alpha=1 / 6, beta=0.5)
    return net.model(net.bn(net.conv(net.add("Mul", x, gate), 24, 16, 1), 16))


@network
def gates_of_convolutions() -> ModelProto:
    """SiLU, Mish, Tanh, each behind a BatchNorm."""
    net = Net()
    x = net.bn(net.conv("x", 3, 16), 16)
    x = net.bn(net.conv(net.add("Mul", x, net.add("Sigmoid", x)), 16, 16), 16)
    mish = net.add("Mul", x, net.add("Tanh", net.add("Softplus", x)))
    return net.model(net.add("Tanh", net.bn(net.conv(mish, 16, 16), 16)))


@network
def repeated_and_expanded() -> ModelProto:
    """Tile and Expand of a pooled vector over the positions, and a Concat of one."""
    net = Net()
    x = net.add("Relu", net.bn(net.conv("x", 3, 8), 8))
    pooled = net.add("GlobalAveragePool", x)
    tiled = net.add("Tile", pooled, net.hold(np.array([1, 1, 16, 16])))
    wide = net.add("Expand", net.add("GlobalMaxPool", x), net.hold(np.array([1, 8, 16, 16])))
    joined = net.add("Concat", x, tiled, wide, axis=1)
    return net.model(net.bn(net.conv(net.add("Concat", joined, axis=1), 24, 8), 8))


@network
def instance_norms_and_clips() -> ModelProto:
    """InstanceNormalization, a Clip, an identity Cast and a Dropout at inference."""
    net = Net()
    x = net.conv("x", 3, 8)
    ones = net.hold(np.linspace(0.5, 1.5, 8, dtype="f4")), net.hold(np.linspace(-0.1, 0.1, 8, dtype="f4"))
    x = net.add("Cast", net.add("InstanceNormalization", x, *ones), to=1)
    x = net.add("Clip", net.bn(net.conv(x, 8, 8), 8), net.hold(np.float32(0)), net.hold(np.float32(6)))
    return net.model(net.add("Dropout", net.bn(net.conv(x, 8, 8), 8)))


@network
def upsampled() -> ModelProto:
    """A pyramid: a nearest Resize beside a convolution."""
    net = Net()
    x = net.add("Relu", net.bn(net.conv("x", 3, 16), 16))
    low = net.add("Relu", net.bn(net.conv(x, 16, 16, strides=[2, 2]), 16))
    scales = net.hold(np.float32([1, 1, 2, 2]))
    high = net.add(
        "Resize", low, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    return net.model(net.bn(net.conv(net.add("Add", x, high), 16, 8), 8))
