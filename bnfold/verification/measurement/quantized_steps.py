"""Errors of quantized tensors in steps of their scale: how far beyond correct rounding an integer is.

Of a value ``u`` (in steps, before it is rounded) the nearest integer is right. Where ``u`` lies near the middle between
two, any arithmetic may give the other one: one that is ``e`` away from exact is up to ``0.5 + e`` away from ``u``. What
follows from such a flip, in the layers behind, is as large as a step, whatever the precision of floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTEGERS = 1 / 16
"""How far beyond correct rounding, in steps, an integer may be that onnxruntime's integer kernels make.

They round the bias to the product of the input's and the weights' scales, which is some hundredth of the output's step
at most; what they add up is exact. A scale that is off by 1 % is off by a step at 100.
"""

FLOATS = 2**-12
"""The same without optimisation, where floats are rounded: 2^-24 of some hundred steps, of what a layer adds up."""


@dataclass(frozen=True)
class StepErrors:
    """A tensor ``name`` at an optimisation ``level``, made from the true integers before it: in steps beyond rounding.

    ``folded`` and ``original`` are the largest of each model. A tensor of floats, behind the last integers, counts by
    what one step in each of these integers does to it.
    """

    name: str
    level: str
    folded: float
    original: float

    @property
    def wrong(self) -> bool:
        """True if the folded model rounds what no arithmetic would, and the original does not."""
        return not self.folded <= self.original + reach(self.level)


@dataclass(frozen=True)
class QuantizedSteps:
    """Each quantized tensor that a fold may have changed, and the original's outputs in float64 with its integers
    flipped, per mode and sample: all that lie within reach of where rounding turns. ``reason`` says why some tensors
    could not be judged.
    """

    tensors: Sequence[StepErrors]
    flipped: Sequence[Sequence[Mapping[str, NDArray[Any]]]] = field(default_factory=list)
    reason: str | None = None


def reach(level: str) -> float:
    """Return how far beyond correct rounding, in steps, an integer may be at an optimisation level."""
    return FLOATS if level == "disable" else INTEGERS


def beyond_rounding(integers: NDArray[Any], steps: NDArray[Any], zero: NDArray[Any] | float) -> float:
    """Return how far, at most, integers are from ``steps`` (the exact value over the scale) beyond half a step."""
    limits = np.iinfo(integers.dtype)
    exact = np.clip(steps + zero, limits.min, limits.max)
    apart = np.abs(integers.astype(np.float64) - exact)
    return max(0.0, float(apart.max(initial=0.0)) - 0.5)
