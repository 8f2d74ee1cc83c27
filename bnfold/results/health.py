"""What is odd about the stored parameters of a BatchNorm: findings with stable codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.batchnorm import BatchNorm

Mask = NDArray[np.bool_]

TINY = 1e-3
"""Of epsilon: where the variance is smaller, epsilon alone decides the affine scale."""

DEAD = 1e-6
"""Of the layer's largest scale: a channel below it is switched off."""

HUGE = 1e4
"""Affine scales above it amplify rounding errors."""

DRIFT = 0.5
"""Standard deviations, as the root mean square over the channels, from which data are said to have drifted."""

FINDINGS = {
    "training-mode": "normalises by the batch: export in evaluation mode (model.eval(), training=False)",
    "never-updated": "mean 0 and variance 1 everywhere: was the network ever trained?",
    "non-finite": "NaN or infinity among the parameters",
    "negative-variance": "a variance below zero, which no data have",
    "zero-variance": "channels that never varied: epsilon alone decides their affine scale",
    "tiny-variance": "variances far below epsilon, which then decides the affine scale",
    "dead-channels": "channels of scale 0: they add their bias and nothing else, and could be pruned",
    "huge-gain": f"affine scales above {HUGE:,.0f}: the statistics do not fit the input",
    "drift": "these data are far from the stored statistics: bnfold calibrate recomputes them",
}
"""Each code, and what it means."""


@dataclass(frozen=True)
class Finding:
    """A code of :data:`FINDINGS`, and the channels that it is about (none: the layer as a whole)."""

    code: str
    channels: tuple[int, ...] = ()


def of_parameters(bn: BatchNorm) -> list[Finding]:
    """Return what is odd about the stored parameters of a BatchNorm."""
    if bn.mean.size and (bn.mean == 0).all() and (bn.var == 1).all():
        return [Finding("never-updated"), *_where("dead-channels", _dead(bn))]
    finite = np.isfinite(bn.scale) & np.isfinite(bn.bias) & np.isfinite(bn.mean) & np.isfinite(bn.var)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spread = bn.var + bn.epsilon
        gains = np.abs(bn.scale) / np.sqrt(np.where(spread > 0, spread, np.nan))
    masks: dict[str, Mask] = {
        "non-finite": ~finite,
        "negative-variance": bn.var < 0,
        "zero-variance": bn.var == 0,
        "tiny-variance": (bn.var > 0) & (bn.var < TINY * bn.epsilon),
        "dead-channels": _dead(bn),
        "huge-gain": gains > HUGE,
    }
    return [finding for code, mask in masks.items() for finding in _where(code, mask)]


def _dead(bn: BatchNorm) -> Mask:
    size = np.abs(bn.scale)
    return np.asarray(size <= DEAD * np.max(size, initial=0.0, where=np.isfinite(size)))


def _where(code: str, mask: Mask) -> list[Finding]:
    """Return a finding for the channels of the mask, if any; positions behind the channel's axis are one."""
    if mask.ndim > 1:
        mask = np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))
    return [Finding(code, tuple(map(int, np.flatnonzero(mask))))] if mask.any() else []
