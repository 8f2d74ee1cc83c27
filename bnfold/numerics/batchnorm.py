"""The reference: what a BatchNormalization computes, in training and at inference.

At **inference** the stored (running, "population") statistics are used and the layer is one affine transform
per channel::

    y = scale * (x - mean) / sqrt(var + epsilon) + bias  =  gain * x + shift
    gain  = scale / sqrt(var + epsilon)
    shift = bias - mean * gain

In **training** the statistics of the mini-batch take the place of the stored ones, and the stored ones
move a little towards them.

Which entries share a mean is the whole difference between the variants that people confuse:

==================  ==========================  ==============================================
variant             one mean per                reduced axes of an ``(N, C, H, W)`` tensor
==================  ==========================  ==============================================
``per_channel``     channel (feature map)       batch and every position: ``(0, 2, 3)``
``per_feature``     feature of a dense layer    batch: ``(0,)`` of an ``(N, F)`` tensor
``per_activation``  channel *and* position      batch only: ``(0,)``; ONNX ``spatial=0``
==================  ==========================  ==============================================

A mean per *sample* (over channels, or over positions) is LayerNorm or InstanceNorm, not BatchNorm.

Everything is computed in float64. Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1
and 2 and section 3.2; ONNX operator ``BatchNormalization`` (opsets 1 to 15).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnfold.numerics.affine import Affine

Array = NDArray[np.float64]
Momentum = Literal["onnx", "torch"]

ONNX_EPSILON = float(np.float32(1e-5))
"""What ONNX adds where a node does not say: attributes are float32, also in models of float64."""


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """The five numbers per channel, under ONNX's names (Keras and torch names in brackets).

    ``scale`` (gamma, weight), ``bias`` (beta, bias), ``mean`` (moving_mean, running_mean) and ``var``
    (moving_variance, running_var) have one shape: ``(C,)``, or ``(C, D1, …)`` per activation.
    ``epsilon`` is one number. Raises ValueError when the shapes differ.
    """

    scale: Array
    bias: Array
    mean: Array
    var: Array
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("scale", "bias", "mean", "var"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        shapes = {name: getattr(self, name).shape for name in ("scale", "bias", "mean", "var")}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"scale, bias, mean and var must have one shape, not {shapes}")

    @classmethod
    def fresh(cls, channels: int, epsilon: float = 1e-5) -> BatchNorm:
        """A layer that has never been trained: scale 1, bias 0, mean 0, variance 1."""
        one, zero = np.ones(channels), np.zeros(channels)
        return cls(one, zero, zero, one, epsilon)

    @property
    def parameter_count(self) -> int:
        """How many numbers are stored, as Keras counts them: trainable and running, four per channel."""
        return self.scale.size + self.bias.size + self.mean.size + self.var.size

    def affine(self, channel_axis: int = 1) -> Affine:
        """The inference transform with its channels on ``channel_axis`` (following axes: positions).

        Raises ValueError where ``var + epsilon`` is not positive: the transform does not exist.
        """
        spread = self.var + self.epsilon
        if not (spread > 0).all():
            raise ValueError(f"var + epsilon must be positive; the smallest is {spread.min()}")
        gain = self.scale / np.sqrt(spread)
        return Affine.along(channel_axis, gain, self.bias - self.mean * gain)


def per_channel(ndim: int, channel_axis: int = 1) -> tuple[int, ...]:
    """The axes to reduce for one statistic per channel: all but the channel's. -1 means channels last."""
    channel_axis = range(ndim)[channel_axis]
    return tuple(axis for axis in range(ndim) if axis != channel_axis)


def per_feature(ndim: int) -> tuple[int, ...]:
    """The axes to reduce for one statistic per feature of a dense layer ``(N, …, F)``: all but the last."""
    return per_channel(ndim, -1)


def per_activation() -> tuple[int, ...]:
    """The axes to reduce for one statistic per channel and position (ONNX ``spatial=0``): the batch."""
    return (0,)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of a batch: ``mean`` and the biased ``var``, over ``count`` values each (m·p·q for images)."""

    mean: Array
    var: Array
    count: int

    @property
    def unbiased_var(self) -> Array:
        """The variance with Bessel's correction, ``var * count / (count - 1)``; infinite for one value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.var * (np.float64(self.count) / (self.count - 1)))


def batch_statistics(x: ArrayLike, axes: tuple[int, ...]) -> Statistics:
    """Mean and biased variance of ``x`` over ``axes`` (see :func:`per_channel` and its neighbours)."""
    values = np.asarray(x, np.float64)
    count = int(np.prod([values.shape[axis] for axis in axes]))
    return Statistics(values.mean(axis=axes), values.var(axis=axes), count)


def inference(x: ArrayLike, bn: BatchNorm, channel_axis: int = 1) -> Array:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias`` with the stored statistics, in float64.

    ``x`` has any rank; its ``channel_axis`` matches the layer's ``(C,)`` (-1: channels last). Statistics of
    shape ``(C, D1, …)`` are per activation: they also span the axes behind the channel's.
    """
    values = np.asarray(x, np.float64)
    scale, bias, mean, var = (_aligned(p, values.ndim, channel_axis) for p in (bn.scale, bn.bias, bn.mean, bn.var))
    return np.asarray(scale * (values - mean) / np.sqrt(var + bn.epsilon) + bias)


def update_running(running: ArrayLike, batch: ArrayLike, momentum: float, convention: Momentum = "onnx") -> Array:
    """One step of the moving average of a statistic.

    ``onnx`` (and Keras): ``running * momentum + batch * (1 - momentum)``, typically 0.9 to 0.99.
    ``torch``: ``running * (1 - momentum) + batch * momentum``, typically 0.1.
    """
    keep = momentum if convention == "onnx" else 1.0 - momentum
    return np.asarray(keep * np.asarray(running, np.float64) + (1.0 - keep) * np.asarray(batch, np.float64))


def training_step(
    x: ArrayLike,
    bn: BatchNorm,
    *,
    channel_axis: int = 1,
    momentum: float = 0.9,
    convention: Momentum = "onnx",
    unbiased: bool | None = None,
) -> tuple[Array, BatchNorm]:
    """Normalise ``x`` by its own statistics and return ``(y, the layer with its running ones updated)``.

    ``y`` always uses the biased variance. ``unbiased`` says which variance enters the running one:
    torch takes the unbiased, ONNX and Keras the biased; by default the convention decides.
    """
    values = np.asarray(x, np.float64)
    axes = per_channel(values.ndim, channel_axis) if bn.mean.ndim == 1 else per_activation()
    batch = batch_statistics(values, axes)
    if unbiased is None:
        unbiased = convention == "torch"
    y = inference(values, replace(bn, mean=batch.mean, var=batch.var), channel_axis)
    moved: dict[str, Any] = {
        "mean": update_running(bn.mean, batch.mean, momentum, convention),
        "var": update_running(bn.var, batch.unbiased_var if unbiased else batch.var, momentum, convention),
    }
    return y, replace(bn, **moved)


def _aligned(parameter: Array, ndim: int, channel_axis: int) -> Array:
    """``parameter`` with ones around it, so that its first axis lies on ``channel_axis`` of ``ndim`` axes."""
    axis = range(ndim)[channel_axis]
    return parameter.reshape((1,) * axis + parameter.shape + (1,) * (ndim - axis - parameter.ndim))
