"""A constant as it is known: exactly, and as a runtime has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.rounding import is_float, ulp

ROUNDINGS = 64
"""How many roundings of the largest entry may lie between a constant and what a runtime makes of it."""

PIECE = 2**18
"""Elements that are compared at a time."""


@dataclass(frozen=True)
class ConstantValue:
    """A constant: ``exact``, floats in float64 where they were computed with, and as a runtime has it, ``stored``."""

    exact: NDArray[Any]
    stored: NDArray[Any]

    @property
    def size(self) -> int:
        """The elements that it holds."""
        return self.exact.size + (0 if self.stored is self.exact else self.stored.size)

    @property
    def stable(self) -> bool:
        """True where both are the same up to rounding."""
        if self.exact is self.stored:
            return True
        if not is_float(self.exact.dtype):
            return np.array_equal(self.exact, self.stored)
        flat, largest, apart = (self.exact.reshape(-1), self.stored.reshape(-1)), 0.0, 0.0
        for start in range(0, self.exact.size, PIECE):
            exact, kept = (data[start : start + PIECE].astype(np.float64) for data in flat)
            finite = np.isfinite(exact)
            if (finite != np.isfinite(kept)).any():
                return False
            largest = max(largest, float(np.abs(exact[finite]).max(initial=0)))
            apart = max(apart, float(np.abs(exact[finite] - kept[finite]).max(initial=0)))
        return bool(apart <= ROUNDINGS * float(ulp(np.ones(()), self.stored.dtype)) * largest)
