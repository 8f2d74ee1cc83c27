"""What a value *is*, whatever network computes it: a class of values and a map on it.

Two values are of one class if they are the same function of the model's inputs, up to an affine map per channel. A
network with its BatchNorms and the same one folded go through different values, but each folded value is a known map
of an original one: so both networks are read into one table of classes, and they are the same function where their
outputs have one class and one map. No plan, and no name inside the graph, is needed for that.

Numbers in a folded model are rounded, so maps carry error bars: what rounding every stored number by some ulps may have
moved them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.affine import IDENTITY, Affine

Array = NDArray[np.float64]
Scale = Literal["any", "positive", "nonnegative", "none"]

LOOSE = 8.0
"""Ulps that the numbers of two models may differ by and still count as meant to be the same."""

DEAD = 2.0**-100
"""Numbers this many times smaller than the largest of their kind are nothing: weight decay leaves such channels."""

FACTOR = 2.0**-48
"""What computing a factor in float64 and multiplying by it again may cost, relative to the number."""

ZERO = np.zeros(())


@dataclass(frozen=True, eq=False)
class AbstractValue:
    """A value as ``map`` of the value of class ``base``; the errors bound what rounding may have moved the map by."""

    base: int
    map: Affine = IDENTITY
    gain_error: Array = field(default_factory=lambda: ZERO)
    shift_error: Array = field(default_factory=lambda: ZERO)

    def mapped(self, own: Affine, terms: Array, eps: float, *, rounds: bool = False) -> AbstractValue:
        """What ``own`` makes of the value; ``terms`` are the sizes of what its shift was added up from.

        ``rounds``: the gain of ``own`` may be a rounded result, which shows where gains cancel in a sum later.
        """
        arrays = aligned(own.gain, terms, self.map.shift, self.gain_error, self.shift_error)
        gain, sizes, shift, gain_error, shift_error = (np.abs(array) for array in arrays)
        moved = gain * shift_error + LOOSE * eps * (gain * shift + sizes)
        made = own.after(self.map)
        errors = aligned(gain * gain_error, np.abs(made.gain) * (LOOSE * eps if rounds else 0.0))
        return AbstractValue(self.base, made, errors[0] + errors[1], moved)

    def shifted(self, shift: Array, error: Array) -> AbstractValue:
        """The value plus ``shift``, whose error is bounded by ``error``; both are laid out like a map."""
        total, more = aligned(self.map.shift, shift)
        bars, extra = aligned(self.shift_error, error)
        return AbstractValue(self.base, Affine.of(*aligned(self.map.gain, total + more)), self.gain_error, bars + extra)

    def only(self, where: NDArray[np.bool_]) -> AbstractValue:
        """The same value, of which the channels elsewhere read nothing of their class: any gain would do for them."""
        if where.all():
            return self
        gain, shift, error, there = aligned(self.map.gain, self.map.shift, self.gain_error, where)
        return AbstractValue(
            self.base, Affine.of(np.where(there, gain, 0.0), shift), np.where(there, error, 0.0), self.shift_error
        )

    @property
    def is_plain(self) -> bool:
        """True if the value is its class's own, exactly."""
        return self.map.is_identity

    def agrees(self, other: AbstractValue, eps: float) -> NDArray[np.bool_] | None:
        """Where both maps are one within their errors; None if the classes differ."""
        if self.base != other.base:
            return None
        gain, gain2, error, error2 = aligned(self.map.gain, other.map.gain, self.gain_error, other.gain_error)
        shift, shift2, moved, moved2 = aligned(self.map.shift, other.map.shift, self.shift_error, other.shift_error)
        with np.errstate(invalid="ignore"):
            near_gain = np.abs(gain - gain2) <= error + error2 + LOOSE * eps * np.abs(gain) + _nothing(gain)
            near_shift = np.abs(shift - shift2) <= moved + moved2 + LOOSE * eps * np.abs(shift) + _nothing(shift)
            same_gain = (near_gain & np.isfinite(gain) & np.isfinite(gain2)) | (gain == gain2)
            same_shift = (near_shift & np.isfinite(shift) & np.isfinite(shift2)) | (shift == shift2)
        return np.asarray(np.logical_and(*aligned(same_gain, same_shift)))

    def distance(self, other: AbstractValue) -> float:
        """How far apart two maps of one class are, for choosing the nearest."""
        gain, gain2, shift, shift2 = aligned(self.map.gain, other.map.gain, self.map.shift, other.map.shift)
        scale = np.abs(gain).max(initial=1e-300)
        return float(np.abs(gain - gain2).sum() / scale + np.abs(shift - shift2).sum() / (scale + np.abs(shift).max()))


def _nothing(numbers: Array) -> float:
    return DEAD * float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))


def aligned(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Arrays with trailing axes of length 1, up to one rank: maps are aligned with the first axes of a tensor."""
    rank = max(array.ndim for array in arrays)
    return [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]


@dataclass(frozen=True)
class Either:
    """Keys that mean the same; which of them a reader can tell depends on what it knows of shapes."""

    keys: tuple[Hashable, ...]


def _keys(key: Hashable) -> tuple[Hashable, ...]:
    return key.keys if isinstance(key, Either) else (key,)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What tells apart operators of one kind: per channel some numbers, and bounds of their errors.

    Both are ``(*lead, entries)``: the axes before the last are the first axes of the tensor, as in a map.
    """

    values: Array
    errors: Array

    @classmethod
    def stacked(cls, values: Sequence[Array], errors: Sequence[Array]) -> Numbers:
        """Arrays that are laid out like maps, one entry each."""
        spread = np.broadcast_arrays(*aligned(*values, *errors))
        return cls(np.stack(spread[: len(values)], -1), np.stack(spread[len(values) :], -1))


@dataclass(frozen=True, eq=False)
class Matched:
    """How each channel's numbers are a multiple of those of a known class; all laid out like a map.

    ``factor`` and a bound of its ``error``; ``same`` says for which channels they are one at all.
    """

    factor: Array
    error: Array
    same: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Entry:
    """A class as it was entered: by whom, and the numbers that make it."""

    base: int
    numbers: Callable[[], Numbers] | None
    owner: Any


class ValueNumbering:
    """The table of classes that two models share. ``notes`` holds what else a meaning remembers of a class."""

    def __init__(self) -> None:
        self._count = 0
        self._table: dict[Hashable, list[Entry]] = {}
        self._by_base: dict[int, Entry] = {}
        self.notes: dict[int, Any] = {}

    def find(
        self, key: Hashable, numbers: Callable[[], Numbers] | None, scale: Scale
    ) -> tuple[int, Matched | None] | None:
        """The class under ``key`` whose numbers are those given, up to ``scale`` per channel; None if there is none."""
        entries = self.entries(key)
        mine = numbers() if numbers is not None and entries else None
        for entry in entries:
            if mine is None or entry.numbers is None:
                return entry.base, None
            found = match(mine, entry.numbers(), scale)
            if found is not None and found.same.all():
                return entry.base, found
        return None

    def nearest(self, key: Hashable, numbers: Callable[[], Numbers], scale: Scale) -> tuple[Entry, Matched] | None:
        """Of the classes under ``key`` the one that shares most channels."""
        best: tuple[Entry, Matched] | None = None
        mine = numbers()
        for entry in self.entries(key):
            found = None if entry.numbers is None else match(mine, entry.numbers(), scale)
            if found is not None and (best is None or found.same.sum() > best[1].same.sum()):
                best = entry, found
        return best

    def enter(self, key: Hashable, numbers: Callable[[], Numbers] | None, owner: Any) -> int:
        """A new class under ``key``. Its numbers are asked for when another is compared with it."""
        self._count += 1
        entry = self._by_base[self._count] = Entry(self._count, numbers, owner)
        for one in _keys(key):
            self._table.setdefault(one, []).append(entry)
        return self._count

    def entries(self, key: Hashable) -> list[Entry]:
        """All classes under ``key``."""
        return list(dict.fromkeys(entry for one in _keys(key) for entry in self._table.get(one, ())))

    def entry(self, base: int) -> Entry:
        """How a class was entered."""
        return self._by_base[base]


def match(new: Numbers, old: Numbers, scale: Scale) -> Matched | None:
    """The numbers of ``new`` as multiples of those of ``old``, channel by channel; None if the shapes don't fit."""
    if new.values.shape == old.values.shape and np.array_equal(new.values, old.values, equal_nan=True):
        lead = new.values.shape[:-1]
        return Matched(np.ones(lead), np.zeros(lead), np.ones(lead, bool))
    if new.values.shape[-1] != old.values.shape[-1]:
        return None
    try:
        a, errors_a, b, errors_b = np.broadcast_arrays(*_lead_aligned(new.values, new.errors, old.values, old.errors))
    except ValueError:
        return None
    finite = np.isfinite(a) & np.isfinite(b)
    same = np.where(finite, True, (a == b) | (np.isnan(a) & np.isnan(b))).all(axis=-1)
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    unit = np.abs(b).max(axis=-1, initial=0.0)[..., None]
    unit = np.where(unit > 0, unit, 1.0)
    power = ((b / unit) ** 2).sum(axis=-1)
    there = power > 0
    power = np.where(there, power, 1.0)
    factor, error = np.ones(power.shape), np.zeros(power.shape)
    if scale != "none":
        factor = np.where(there, (a / unit * (b / unit)).sum(axis=-1) / power, 1.0)
        error = np.where(there, (errors_a / unit * np.abs(b / unit)).sum(axis=-1) / power, 0.0)
    exact = (a == b).all(axis=-1)
    factor, error = np.where(exact, 1.0, factor), np.where(exact, 0.0, error)
    if scale in ("positive", "nonnegative"):
        same = same & ((factor > 0) if scale == "positive" else (factor >= 0))
    allowed = errors_a + np.abs(factor)[..., None] * errors_b + error[..., None] * np.abs(b) + _nothing(a)
    allowed = allowed + FACTOR * np.abs(a)
    near = (np.abs(a - factor[..., None] * b) <= allowed).all(axis=-1)
    return Matched(factor, error, same & near)


def _lead_aligned(*arrays: Array) -> list[Array]:
    rank = max(array.ndim for array in arrays)
    return [array.reshape(array.shape[:-1] + (1,) * (rank - array.ndim) + array.shape[-1:]) for array in arrays]
