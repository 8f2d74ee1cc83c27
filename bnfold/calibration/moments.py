"""Population statistics from batches, in float64: exact pooled moments, and the averages that training keeps instead.

Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979;
Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021 (precise statistics); the steps are those of
:mod:`bnfold.numerics.batchnorm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.batchnorm import Array, Momentum, Statistics, batch_statistics, update_running

PIECE = 2**22
"""Elements that are taken into float64 at once."""


def pooled(first: Statistics, second: Statistics) -> Statistics:
    """The statistics of two batches taken together, exactly: neither need be as large as the other."""
    count = first.count + second.count
    if not first.count or not second.count:
        return first if first.count else second
    distance, share = second.mean - first.mean, second.count / count
    mean = first.mean + distance * share
    var = first.var * (1 - share) + second.var * share + distance**2 * (share * (1 - share))
    return Statistics(mean, var, count)


def statistics_of(x: NDArray[Any], axes: tuple[int, ...]) -> Statistics:
    """Mean and biased variance of an activation of any size, in bounded memory: rows are pooled block by block."""
    rows = max(1, PIECE // max(1, x[:1].size))
    total = batch_statistics(x[:rows], axes) if x.size else Statistics(np.zeros(()), np.zeros(()), 0)
    for start in range(rows, len(x), rows):
        total = pooled(total, batch_statistics(x[start : start + rows], axes))
    return total


class Estimator(Protocol):
    """Turns the statistics of batches into running ones."""

    def add(self, batch: Statistics) -> None:
        """Take one batch in."""

    def result(self) -> Statistics | None:
        """Mean, variance and how many values they come from; None before the first batch."""


@dataclass
class Population:
    """All batches as one: the exact mean and (biased) variance of everything seen."""

    total: Statistics | None = None

    def add(self, batch: Statistics) -> None:
        """Take one batch in, by its size."""
        self.total = batch if self.total is None else pooled(self.total, batch)

    def result(self) -> Statistics | None:
        """Return what all batches together have."""
        return self.total if self.total is not None and self.total.count else None


@dataclass
class MovingAverage:
    """What training keeps: each batch moves the running statistics a little (``momentum``), from where they stand.

    ``momentum`` None is torch's cumulative average: every batch counts alike, whatever its size, and the running
    statistics so far do not count. The variance is torch's unbiased or ONNX's and Keras' biased one.
    """

    mean: Array
    var: Array
    momentum: float | None
    convention: Momentum = "onnx"
    batches: int = 0
    count: int = 0

    def add(self, batch: Statistics) -> None:
        """One step of training; a batch of nothing is none."""
        if not batch.count:
            return
        var = batch.unbiased_var if self.convention == "torch" else batch.var
        self.batches += 1
        self.count += batch.count
        step = 1 / self.batches if self.momentum is None else self.momentum
        convention: Momentum = "torch" if self.momentum is None else self.convention
        self.mean = update_running(self.mean, batch.mean, step, convention)
        self.var = update_running(self.var, var, step, convention)

    def result(self) -> Statistics | None:
        """The running statistics as they stand."""
        return Statistics(self.mean, self.var, self.count) if self.batches else None


def distance(stored: tuple[Array, Array], found: Statistics, epsilon: float) -> Array:
    """How far the data lie from the stored statistics, per channel, in stored standard deviations.

    The 2-Wasserstein distance of two normal distributions, ``sqrt((μ-μ')² + (σ-σ')²) / σ`` with ``σ² = var + epsilon``:
    0 where they agree, 1 where the mean is off by one deviation or the spread twice as wide.
    """
    mean, var = stored
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        deviation, other = np.sqrt(var + epsilon), np.sqrt(found.var + epsilon)
        away = np.hypot(found.mean - mean, other - deviation) / deviation
    return np.where(np.isnan(away), np.inf, away)
