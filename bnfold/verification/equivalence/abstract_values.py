"""Abstract values: the class of a value, whatever network computes it, and an affine transform.

Two values are of one class if they are the same function of the model's inputs, up to an affine transform per channel.
A network with its BatchNorms and the same one folded go through different values, but each folded value is a known
transform of an original one. So both networks are read into one table of classes (a value numbering), and they are the
same function where their outputs have one class and one transform. Neither a plan nor a name inside the graph is needed
for that.

Numbers in a folded model are rounded, so transforms carry error bars: bounds of what rounding each stored number by
some ulps may have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.verification.equivalence.multiples import LOOSE, Array, Matched, Numbers, Scale, aligned, match, negligible

EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
"""The distance from 1 to the next number, by float type."""

ZERO = np.zeros(())


@dataclass(frozen=True, eq=False)
class AbstractValue:
    """A value as an ``affine`` transform of that of class ``base``; the errors bound what rounding changes in it."""

    base: int
    affine: Affine = IDENTITY
    gain_error: Array = field(default_factory=lambda: ZERO)
    shift_error: Array = field(default_factory=lambda: ZERO)

    def transformed(self, own: Affine, terms: Array, eps: float, *, rounds: bool = False) -> AbstractValue:
        """Return the value after the transform ``own``; ``terms`` are the sizes of what its shift was added up from.

        ``rounds``: the gain of ``own`` may be a rounded result, which shows where gains cancel in a sum later.
        """
        arrays = aligned(own.gain, terms, self.affine.shift, self.gain_error, self.shift_error)
        gain, sizes, shift, gain_error, shift_error = (np.abs(array) for array in arrays)
        moved = gain * shift_error + LOOSE * eps * (gain * shift + sizes)
        made = own.after(self.affine)
        errors = aligned(gain * gain_error, np.abs(made.gain) * (LOOSE * eps if rounds else 0.0))
        return AbstractValue(self.base, made, errors[0] + errors[1], moved)

    def shifted(self, shift: Array, error: Array) -> AbstractValue:
        """Return the value plus ``shift``, whose error is bounded by ``error``; both are laid out like a transform."""
        total, more = aligned(self.affine.shift, shift)
        bars, extra = aligned(self.shift_error, error)
        return AbstractValue(
            self.base, Affine.of(*aligned(self.affine.gain, total + more)), self.gain_error, bars + extra
        )

    def only(self, where: NDArray[np.bool_]) -> AbstractValue:
        """Return the same value with a gain of 0 elsewhere: those channels do not depend on their class."""
        if where.all():
            return self
        gain, shift, error, there = aligned(self.affine.gain, self.affine.shift, self.gain_error, where)
        return AbstractValue(
            self.base, Affine.of(np.where(there, gain, 0.0), shift), np.where(there, error, 0.0), self.shift_error
        )

    @property
    def is_plain(self) -> bool:
        """True if the value is its class's own, exactly."""
        return self.affine.is_identity

    def agrees(self, other: AbstractValue, eps: float) -> NDArray[np.bool_] | None:
        """Return where both transforms are equal within their errors; None if the classes differ."""
        if self.base != other.base:
            return None
        gain, gain2, error, error2 = aligned(self.affine.gain, other.affine.gain, self.gain_error, other.gain_error)
        shift, shift2, moved, moved2 = aligned(
            self.affine.shift, other.affine.shift, self.shift_error, other.shift_error
        )
        with np.errstate(invalid="ignore"):
            near_gain = np.abs(gain - gain2) <= error + error2 + LOOSE * eps * np.abs(gain) + negligible(gain)
            near_shift = np.abs(shift - shift2) <= moved + moved2 + LOOSE * eps * np.abs(shift) + negligible(shift)
            same_gain = (near_gain & np.isfinite(gain) & np.isfinite(gain2)) | (gain == gain2)
            same_shift = (near_shift & np.isfinite(shift) & np.isfinite(shift2)) | (shift == shift2)
        return np.asarray(np.logical_and(*aligned(same_gain, same_shift)))

    def distance(self, other: AbstractValue) -> float:
        """Return how far apart two transforms of one class are, for choosing the nearest."""
        gain, gain2, shift, shift2 = aligned(self.affine.gain, other.affine.gain, self.affine.shift, other.affine.shift)
        scale = np.abs(gain).max(initial=1e-300)
        return float(np.abs(gain - gain2).sum() / scale + np.abs(shift - shift2).sum() / (scale + np.abs(shift).max()))


@dataclass(frozen=True)
class Either:
    """Keys of equal meaning; which of them is known depends on the shapes that are."""

    keys: tuple[Hashable, ...]


def _keys(key: Hashable) -> tuple[Hashable, ...]:
    return key.keys if isinstance(key, Either) else (key,)


@dataclass(frozen=True)
class Layer:
    """A linear operator with constant weights: its rows, the type of its weights, the state of its ``output``.

    ``base`` is the class of its rows; its output's, with channels on ``axis``, may be another view of that.
    """

    rows: Callable[[], Numbers]
    dtype: Any
    output: AbstractValue
    base: int
    axis: int


@dataclass(frozen=True, eq=False)
class Entry:
    """A class as it was entered: the node that it stands for (``owner``), and the numbers that make it."""

    base: int
    numbers: Callable[[], Numbers] | None
    owner: Any


class ValueNumbering:
    """The table of classes that two models share.

    ``clip_origins`` holds sign, shift and the shift's error of the first value of a class that was clipped.
    """

    def __init__(self) -> None:
        self._count = 0
        self._table: dict[Hashable, list[Entry]] = {}
        self._by_base: dict[int, Entry] = {}
        self.clip_origins: dict[int, Any] = {}

    def find(
        self, key: Hashable, numbers: Callable[[], Numbers] | None, scale: Scale
    ) -> tuple[int, Matched | None] | None:
        """Return the class under ``key`` whose numbers are those given, up to ``scale`` per channel; None for none."""
        entries = self.entries(key)
        mine = numbers() if numbers is not None and entries else None
        for entry in entries:
            if mine is None or entry.numbers is None:
                return entry.base, None
            found = match(mine, entry.numbers(), scale)
            if found is not None and found.same.all():
                return entry.base, found
        return None

    def nearest(
        self, key: Hashable, numbers: Callable[[], Numbers], scale: Scale, last: int, claimed: Collection[int]
    ) -> tuple[Entry, Matched] | None:
        """Return that of the classes under ``key``, up to the ``last``, which shares most channels.

        Of ``claimed`` ones it must share more than half: they are computed by other nodes, and that one more node reads
        the same values does not make them its counterparts.
        """
        best: tuple[Entry, Matched] | None = None
        mine = numbers()
        for entry in self.entries(key):
            found = None if entry.numbers is None or entry.base > last else match(mine, entry.numbers(), scale)
            if found is None or (entry.base in claimed and found.same.mean() <= 0.5):
                continue
            if best is None or found.same.sum() > best[1].same.sum():
                best = entry, found
        return best

    def enter(self, key: Hashable, numbers: Callable[[], Numbers] | None, owner: Any) -> int:
        """Enter a new class under ``key``. Its numbers are computed when another is compared with it."""
        self._count += 1
        entry = self._by_base[self._count] = Entry(self._count, numbers, owner)
        for one in _keys(key):
            self._table.setdefault(one, []).append(entry)
        return self._count

    def entries(self, key: Hashable) -> list[Entry]:
        """Return all classes under ``key``."""
        return list(dict.fromkeys(entry for one in _keys(key) for entry in self._table.get(one, ())))

    @property
    def last(self) -> int:
        """The class that was entered last."""
        return self._count

    def entry(self, base: int) -> Entry:
        """Return how a class was entered."""
        return self._by_base[base]


def numbers_of(state: AbstractValue, eps: float) -> Numbers:
    """Return gain and shift of a transform, as numbers that distinguish classes."""
    gain, shift = state.affine.gain, state.affine.shift
    bars = aligned(state.gain_error, np.abs(gain), state.shift_error, np.abs(shift))
    return Numbers.stacked((gain, shift), (bars[0] + LOOSE * eps * bars[1], bars[2] + LOOSE * eps * bars[3]))
