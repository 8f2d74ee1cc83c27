"""Rounding: float64 numbers to a stored type, once, to nearest even; and how far apart a type's numbers are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""The types that transforms are carried in."""


@cache
def is_float(dtype: np.dtype[Any]) -> bool:
    """Return True for a type of FLOATS. (Numpy builds a type's name at each access.)"""
    return dtype.name in FLOATS


def rounded(values: ArrayLike, dtype: Any, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Float64 ``values`` rounded once, to nearest even, to ``dtype`` (a numpy or ml_dtypes type).

    bfloat16 is reached through float32: rounding that step to odd keeps the whole a single rounding
    (Boldo and Melquiond, "When double rounding is odd", 2005). Overflow gives infinities, silently.
    """
    values, dtype = np.asarray(values, np.float64), np.dtype(dtype)
    with np.errstate(over="ignore"):
        if dtype.name != "bfloat16":
            if out is None:
                return values.astype(dtype)
            np.copyto(out, values, casting="same_kind")
            return out
        near = values.astype(np.float32)
        bits = near.view(np.uint32) if near.ndim else near.reshape(1).view(np.uint32).reshape(())
        toward = np.where(np.abs(near.astype(np.float64)) > np.abs(values), bits - 1, bits)
        inexact = near.astype(np.float64) != values
        odd = np.where(inexact & np.isfinite(near), toward | 1, bits).astype(np.uint32)
        return odd.view(np.float32).astype(dtype)


def smallest_normal(dtype: Any) -> float:
    """The smallest positive number of ``dtype`` with all its bits."""
    return float(_finfo(dtype).smallest_normal)


def range_of(dtype: Any) -> tuple[float, float]:
    """The size below which ``dtype`` has no more bits to lose, and its largest number.

    Numbers smaller than the first are rounded in equal steps, as coarsely as those of that size.
    """
    info = _finfo(dtype)
    return float(info.smallest_normal), float(info.max)


def ulp(values: Array, dtype: Any) -> Array:
    """The distance between neighbouring numbers of ``dtype`` at ``values``, in float64; NaN where they overflow."""
    if np.dtype(dtype).name != "bfloat16":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.spacing(np.abs(np.asarray(values, dtype))), np.float64)
    info = _finfo(dtype)
    stored = np.abs(rounded(values, dtype).astype(np.float64))
    exponent = np.frexp(np.maximum(stored, float(info.smallest_normal)))[1]
    return np.where(np.isfinite(stored), np.ldexp(1.0, exponent - 1 - info.nmant), np.nan)


def accumulated_error(starts: Array, products: float, dtype: Any) -> Array:
    """Return the size (root mean square) of what sums lose that start at ``starts``, a bias, and add up ``products``.

    Each of the running sums is about as large as the start, and rounded to half an ulp there. oneDNN starts so; a
    runtime that adds the bias last loses less. Accumulators have at least the bits of float32. Source of the factor:
    the variance of an error that is anywhere between half an ulp below and above is a twelfth of the ulp squared.
    """
    kind = dtype if np.dtype(dtype).name == "float64" else np.float32
    starts = np.asarray(starts, np.float64)
    return np.where(starts == 0, 0.0, np.sqrt(products / 12) * ulp(starts, kind))


def _finfo(dtype: Any) -> Any:
    if np.dtype(dtype).name != "bfloat16":
        return np.finfo(dtype)
    import ml_dtypes

    finfo: Any = ml_dtypes.finfo
    return finfo(dtype)
