"""Two networks in which a fold by the common pattern is wrong. ``benchmarks/peers.py`` lets every tool try them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from benchmarks.architectures import Net


def training_mode() -> ModelProto:
    """Return Conv and a BatchNorm in training mode, which normalises by the batch and not by what it stores."""
    net = Net()
    x = net.bn(net.conv("x", 3, 8), 8)
    norm = net.nodes[-1]
    norm.attribute.add(name="training_mode", type=2, i=1)
    norm.output.extend(["batch_mean", "batch_var"])
    return net.model(x, (4, 3, 16, 16))


def factor_along_the_width() -> ModelProto:
    """Return Conv and a Mul by as many numbers as there are channels, without axes for height and width.

    They broadcast along the last axis, which is the width: a factor per column, not per channel.
    """
    net = Net()
    x = net.conv("x", 3, 8)
    return net.model(net.add("Mul", x, net.hold(np.linspace(0.5, 2.0, 8, dtype=np.float32))), (1, 3, 8, 8))


TRAPS: dict[str, Callable[[], ModelProto]] = {
    "BatchNorm in training mode": training_mode,
    "Mul by (C,) along the width": factor_along_the_width,
}
"""Each network by what is in it."""
