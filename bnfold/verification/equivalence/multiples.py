"""Numbers that distinguish operators of one kind, with error bars, and which are multiples of one another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scale = Literal["any", "positive", "nonnegative", "none"]

LOOSE = 8.0
"""Ulps by which the numbers of two models may differ and still count as the same."""

SMALL = 2.0**-10
"""Numbers smaller than this part of the largest of their row don't decide a factor between rows."""

MUCH_WIDER = 16.0
LEAST = 2.0**-40
"""How many times wider error bars may be than the narrowest of their row; relative bars below which all are exact."""

BLOCK = 2**16
"""Numbers that are compared at a time."""

DEAD = 2.0**-100
"""Numbers this many times smaller than the largest of their kind count as zero: weight decay leaves such channels."""

FACTOR = 2.0**-48
"""What computing a factor in float64 and multiplying by it again may cost, relative to the number."""


def negligible(numbers: Array) -> float:
    """Return the size up to which a number counts as zero beside the others."""
    return DEAD * float(np.abs(numbers).max(where=np.isfinite(numbers), initial=0.0))


def aligned(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Return arrays with trailing axes of length 1, of one rank: transforms are aligned with a tensor's first axes."""
    rank = max(array.ndim for array in arrays)
    return [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]


def evened(gain: Array, error: Array, axes: Sequence[int], eps: float) -> tuple[Array, Array]:
    """Return a gain that is the same along ``axes``, up to rounding, as one that is, with that in its error."""
    gain, error = np.broadcast_arrays(*aligned(gain, error))
    axes = [axis for axis in axes if axis < gain.ndim]
    first = gain
    for axis in axes:
        first = np.take(first, [0], axis)
    apart = np.abs(gain - first)
    if (apart > 2 * error + 2 * LOOSE * eps * np.abs(gain)).any():
        return gain, error
    return first, (error + apart).max(axis=tuple(axes), keepdims=True)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What distinguishes operators of one kind: per channel some numbers, and bounds of their errors.

    Both are ``(*lead, entries)``: the axes before the last are the first axes of the tensor, as in a transform.
    """

    values: Array
    errors: Array

    @classmethod
    def stacked(cls, values: Sequence[Array], errors: Sequence[Array]) -> Numbers:
        """Return arrays that are laid out like transforms as one, an entry each."""
        spread = np.broadcast_arrays(*aligned(*values, *errors))
        return cls(np.stack(spread[: len(values)], -1), np.stack(spread[len(values) :], -1))


@dataclass(frozen=True, eq=False)
class Matched:
    """How each channel's numbers are a multiple of those of a known class; all laid out like a transform.

    ``factor`` and a bound of its ``error``; ``same`` says for which channels they are a multiple at all.
    """

    factor: Array
    error: Array
    same: NDArray[np.bool_]


def match(new: Numbers, old: Numbers, scale: Scale) -> Matched | None:
    """Return the numbers of ``new`` as multiples of those of ``old``, by channel; None if the shapes don't fit."""
    if new.values.shape == old.values.shape and np.array_equal(new.values, old.values, equal_nan=True):
        lead = new.values.shape[:-1]
        return Matched(np.ones(lead), np.zeros(lead), np.ones(lead, bool))
    if new.values.shape[-1] != old.values.shape[-1]:
        return None
    arrays = _lead_aligned(new.values, new.errors, old.values, old.errors)
    try:
        lead = np.broadcast_shapes(*(array.shape[:-1] for array in arrays))
    except ValueError:
        return None
    rows = [np.broadcast_to(array, lead + array.shape[-1:]).reshape(-1, array.shape[-1]) for array in arrays]
    factor, error, same = np.ones(len(rows[0])), np.zeros(len(rows[0])), np.ones(len(rows[0]), bool)
    least, step = negligible(new.values), max(1, BLOCK // max(new.values.shape[-1], 1))
    for start in range(0, len(rows[0]), step):  # few enough at a time for a processor's cache
        some = slice(start, start + step)
        a, errors_a, b, errors_b = (array[some] for array in rows)
        factor[some], error[some], same[some] = _multiples(a, errors_a, b, errors_b, least, scale)
    return Matched(factor.reshape(lead), error.reshape(lead), same.reshape(lead))


def _multiples(
    a: Array, errors_a: Array, b: Array, errors_b: Array, least: float, scale: Scale
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return, for some rows, the factor of each of ``a`` over that of ``b``, its error, and where it is one."""
    finite = np.isfinite(a) & np.isfinite(b)
    same: NDArray[np.bool_] = np.ones(len(a), bool)
    if not finite.all():
        same = np.asarray((finite | (a == b) | (np.isnan(a) & np.isnan(b))).all(axis=-1))
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    unit = np.abs(b).max(axis=-1, initial=0.0)[..., None]
    there = unit[..., 0] > 0
    unit = np.where(unit > 0, unit, 1.0)
    factor, error = np.ones(len(a)), np.zeros(len(a))
    if scale != "none":
        known = b / unit
        sure = known * _best_known(known, (errors_a + errors_b) / unit)
        power = np.where(there, np.einsum("rk,rk->r", known, sure), 1.0)
        factor = np.where(there, np.einsum("rk,rk->r", a / unit, sure) / power, 1.0)
        error = np.where(there, (errors_a / unit * np.abs(sure)).sum(axis=-1) / power, 0.0)
    exact = (a == b).all(axis=-1)
    factor, error = np.where(exact, 1.0, factor), np.where(exact, 0.0, error)
    if scale in ("positive", "nonnegative"):
        same = same & ((factor > 0) if scale == "positive" else (factor >= 0))
    allowed = errors_a + np.abs(factor)[:, None] * errors_b + error[:, None] * np.abs(b) + least + FACTOR * np.abs(a)
    near = (np.abs(a - factor[:, None] * b) <= allowed).all(axis=-1)
    return factor, error, same & near


def _best_known(numbers: Array, errors: Array) -> NDArray[np.bool_]:
    """Return which numbers decide a factor: not those whose error bars are much wider than others'.

    Else the bars of one branch of a sum would widen those of all, block after block of a residual network.
    """
    large = np.abs(numbers) >= SMALL
    relative = errors / np.where(large, np.abs(numbers), 1.0)
    best = np.where(large, relative, np.inf).min(axis=-1, initial=np.inf)
    return np.asarray(large & (relative <= MUCH_WIDER * best[..., None] + LEAST))


def _lead_aligned(*arrays: Array) -> list[Array]:
    rank = max(array.ndim for array in arrays)
    return [array.reshape(array.shape[:-1] + (1,) * (rank - array.ndim) + array.shape[-1:]) for array in arrays]
