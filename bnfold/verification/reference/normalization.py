"""Normalizations that onnx's reference computes otherwise than the standard says, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]
Attr = Any


class _OverAxis(OpRun):
    """Operators along one axis; before opset 13 along all from it on, as one, which onnx's reference does not know."""

    def _run(self, x: Array, axis: Attr = None) -> tuple[Array]:
        if self.run_params["opsets"].get("", 13) >= 13:
            return (self._along(x, -1 if axis is None else axis),)
        start = (1 if axis is None else axis) % max(x.ndim, 1)
        rows = int(np.prod(x.shape[:start]))
        return (self._along(x.reshape(rows, -1), 1).reshape(x.shape),)

    def _along(self, x: Array, axis: int) -> Array:
        raise NotImplementedError


class LogSoftmax(_OverAxis):
    """The logarithm of Softmax."""

    def _along(self, x: Array, axis: int) -> Array:
        x = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
        return np.asarray(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)))


class Softmax(_OverAxis):
    """``e^x``, divided by its sum."""

    def _along(self, x: Array, axis: int) -> Array:
        raised = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
        return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


class Hardmax(_OverAxis):
    """One where the first of the largest is, else zero."""

    def _along(self, x: Array, axis: int) -> Array:
        made = np.zeros_like(x)
        np.put_along_axis(made, np.expand_dims(x.argmax(axis=axis), axis), 1, axis)
        return made


class LRN(OpRun):
    """Local response normalization over channels; onnx's reference takes the batch for the channels."""

    def _run(self, x: Array, alpha: Attr = 1e-4, beta: Attr = 0.75, bias: Attr = 1.0, size: Attr = 1) -> tuple[Array]:
        squares, channels = np.square(x), x.shape[1]
        before = (size - 1) // 2
        total = np.zeros_like(squares)
        for offset in range(-before, size - before):
            low, high = max(0, -offset), min(channels, channels - offset)
            total[:, low:high] += squares[:, low + offset : high + offset]
        return (x / (bias + alpha / size * total) ** beta,)


class GroupNormalization(OpRun):
    """Mean 0 and variance 1 in each group of channels; the scale is one per group, from opset 21 on per channel."""

    def _run(
        self, x: Array, scale: Array, bias: Array, epsilon: Attr = 1e-5, num_groups: Attr = 1, **_: Attr
    ) -> tuple[Array]:
        groups = x.reshape(x.shape[0], num_groups, -1)
        centred = groups - groups.mean(axis=2, keepdims=True)
        made = centred / np.sqrt(np.square(centred).mean(axis=2, keepdims=True) + epsilon)
        made = made.reshape(x.shape)
        factor, term = (
            np.repeat(part, x.shape[1] // len(part)).reshape(-1, *[1 for _ in x.shape[2:]]) for part in (scale, bias)
        )
        return (made * factor + term,)
