"""Per-channel affine transforms ``v' = gain * v + shift``: compose, invert, compare.

All of it is float64. What a linear operator makes of them is in
:mod:`bnfold.numerics.linear`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Place = tuple[int, ...]


LARGEST = 2**24
"""Entries that a composed transform may have: constants along different axes, a few bytes each, make their product."""

VANISHING = 2.0**-64
"""A gain this many times smaller than the largest is as good as zero: weight decay leaves such channels."""


@dataclass(frozen=True, eq=False)
class Affine:
    """``v' = gain * v + shift``, broadcast from the *leading* axes of ``v``.

    ``gain`` and ``shift`` are float64 of one shape, aligned with the first axes of the tensor: a transform per
    channel of ``(N, C, H, W)`` has shape ``(1, C)``, whatever the number of positions, and a scalar transform
    has shape ``()``. Axes along which the transform is constant are length 1, trailing ones are dropped: equal
    transforms have equal shapes. Build one with :meth:`along` or :meth:`of`.
    """

    gain: Array
    shift: Array

    @classmethod
    def of(cls, gain: ArrayLike, shift: ArrayLike) -> Affine:
        """The transform with leading-aligned ``gain`` and ``shift``, in its smallest shape."""
        return cls(*_compressed(*leading(np.asarray(gain, np.float64), np.asarray(shift, np.float64))))

    @classmethod
    def along(cls, axis: int, gain: ArrayLike, shift: ArrayLike) -> Affine:
        """The transform whose vectors (or blocks ``(C, D1, …)``) start on ``axis``, which is not negative."""
        gain, shift = np.asarray(gain, np.float64), np.asarray(shift, np.float64)
        return cls.of(gain.reshape((1,) * axis + gain.shape), shift.reshape((1,) * axis + shift.shape))

    @property
    def is_identity(self) -> bool:
        """True for gain 1 and shift 0, exactly."""
        return self.gain.ndim == 0 and self.gain == 1 and self.shift == 0

    @property
    def invertible(self) -> bool:
        """True where no gain is zero, nor so much smaller than the others that undoing it makes no sense."""
        size = np.abs(self.gain)
        return bool(size.min(initial=np.inf) > VANISHING * size.max(initial=0.0))

    @property
    def positive(self) -> bool:
        """True where every gain is positive."""
        return bool((self.gain > 0).all())

    @property
    def has_shift(self) -> bool:
        """True where some shift is not zero."""
        return bool((self.shift != 0).any())

    @property
    def finite(self) -> bool:
        """True where every gain and shift is a finite number."""
        return bool(np.isfinite(self.gain).all() and np.isfinite(self.shift).all())

    def __call__(self, x: ArrayLike) -> Array:
        """The transform applied to a tensor, in float64."""
        values = np.asarray(x, np.float64)
        trailing = (1,) * (values.ndim - self.gain.ndim)
        return np.asarray(
            self.gain.reshape(self.gain.shape + trailing) * values + self.shift.reshape(self.shift.shape + trailing)
        )

    def after(self, first: Affine) -> Affine:
        """The composition: ``self.after(first)(x) == self(first(x))``."""
        gain, other = leading(self.gain, first.gain)
        shift, between = leading(self.shift, first.shift)
        if prod(map(max, zip(gain.shape, other.shape, strict=True))) > LARGEST:
            raise ValueError("a transform that varies along several axes has too many entries")
        return Affine.of(gain * other, gain * between + shift)

    def inverse(self) -> Affine:
        """The transform that undoes this one. Raises ZeroDivisionError where a gain is zero."""
        if not self.invertible:
            raise ZeroDivisionError("a transform with a scale of zero has no inverse")
        return Affine.of(1.0 / self.gain, -self.shift / self.gain)

    def fits(self, other: Affine) -> bool:
        """Return True if one value can have both: along no axis do they vary over different numbers of entries."""
        return all(a == b or 1 in (a, b) for a, b in zip(self.gain.shape, other.gain.shape, strict=False))

    def agrees(self, other: Affine) -> bool:
        """Return True if both are one transform up to a few roundings in float64 (the ulps of their computation)."""
        if self is other:
            return True
        if not self.fits(other):
            return False
        gain, gain2 = leading(self.gain, other.gain)
        shift, shift2 = leading(self.shift, other.shift)
        return _close(gain, gain2, 0.0) and _close(shift, shift2, 1e-14 * float(np.abs(shift).max(initial=0)))

    def vectors(self, axis: int, size: int) -> tuple[Array, Array] | None:
        """Gain and shift as two vectors of ``size`` along ``axis``; None if the transform varies along another."""
        shape = self.gain.shape
        if self.gain.ndim > axis + 1 or any(n != 1 for n in shape[:axis]):
            return None
        if self.gain.ndim == axis + 1 and shape[axis] != size:
            return None
        return (
            np.broadcast_to(self.gain.reshape(-1), (size,)),
            np.broadcast_to(self.shift.reshape(-1), (size,)),
        )

    def gain_only(self) -> Affine:
        """The same transform without its shift."""
        return Affine.of(self.gain, 0.0) if self.has_shift else self

    def shift_only(self) -> Affine:
        """The same transform without its gain: the shift is added to an unscaled value."""
        return Affine.of(1.0, self.shift)


def _close(first: Array, second: Array, least: float) -> bool:
    """``numpy.allclose`` with a relative tolerance of 1e-14, at a quarter of its price: planning asks it all day."""
    with np.errstate(invalid="ignore"):
        near = np.abs(first - second) <= least + 1e-14 * np.abs(second)
    return bool((near | (first == second)).all())


def leading(first: Array, second: Array) -> tuple[Array, Array]:
    """Return both arrays with trailing axes of length 1, up to one rank: transforms align with the first axes."""
    first, second = np.asarray(first), np.asarray(second)
    rank = max(first.ndim, second.ndim)
    return (
        first.reshape(first.shape + (1,) * (rank - first.ndim)),
        second.reshape(second.shape + (1,) * (rank - second.ndim)),
    )


def _compressed(gain: Array, shift: Array) -> tuple[Array, Array]:
    """Both arrays broadcast against each other, without the axes along which neither varies."""
    if gain.shape != shift.shape:
        shape = np.broadcast_shapes(gain.shape, shift.shape)
        gain, shift = (part if part.shape == shape else np.broadcast_to(part, shape) for part in (gain, shift))
    if gain.ndim and gain.size == gain.shape[-1] > 1:  # mostly one vector, whose ends differ
        ends: tuple[Place, Place] = (0,) * gain.ndim, (-1,) * gain.ndim
        if any(part[ends[0]] != part[ends[1]] for part in (gain, shift)):
            return gain, shift
    for axis in range(gain.ndim):
        if gain.shape[axis] > 1:
            first, last = ((slice(None),) * axis + (slice(at, at + 1 or None),) for at in (0, -1))
            alike = all((part[first] == part[last]).all() for part in (gain, shift))
            if alike and (gain == gain[first]).all() and (shift == shift[first]).all():
                gain, shift = (part[first].copy() for part in (gain, shift))  # a view would keep all of it
    rank = gain.ndim
    while rank and gain.shape[rank - 1] == 1:
        rank -= 1
    return gain.reshape(gain.shape[:rank]), shift.reshape(shift.shape[:rank])


IDENTITY = Affine.of(1.0, 0.0)
"""The transform that changes nothing."""
