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

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.affine import IDENTITY, Affine

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
            near_gain = np.abs(gain - gain2) <= error + error2 + LOOSE * eps * np.abs(gain) + _negligible(gain)
            near_shift = np.abs(shift - shift2) <= moved + moved2 + LOOSE * eps * np.abs(shift) + _negligible(shift)
            same_gain = (near_gain & np.isfinite(gain) & np.isfinite(gain2)) | (gain == gain2)
            same_shift = (near_shift & np.isfinite(shift) & np.isfinite(shift2)) | (shift == shift2)
        return np.asarray(np.logical_and(*aligned(same_gain, same_shift)))

    def distance(self, other: AbstractValue) -> float:
        """Return how far apart two transforms of one class are, for choosing the nearest."""
        gain, gain2, shift, shift2 = aligned(self.affine.gain, other.affine.gain, self.affine.shift, other.affine.shift)
        scale = np.abs(gain).max(initial=1e-300)
        return float(np.abs(gain - gain2).sum() / scale + np.abs(shift - shift2).sum() / (scale + np.abs(shift).max()))


def _negligible(numbers: Array) -> float:
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


@dataclass(frozen=True)
class Either:
    """Keys of equal meaning; which of them is known depends on the shapes that are."""

    keys: tuple[Hashable, ...]


def _keys(key: Hashable) -> tuple[Hashable, ...]:
    return key.keys if isinstance(key, Either) else (key,)


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
class Matched:
    """How each channel's numbers are a multiple of those of a known class; all laid out like a transform.

    ``factor`` and a bound of its ``error``; ``same`` says for which channels they are a multiple at all.
    """

    factor: Array
    error: Array
    same: NDArray[np.bool_]


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
    least, step = _negligible(new.values), max(1, BLOCK // max(new.values.shape[-1], 1))
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


def numbers_of(state: AbstractValue, eps: float) -> Numbers:
    """Return gain and shift of a transform, as numbers that distinguish classes."""
    gain, shift = state.affine.gain, state.affine.shift
    bars = aligned(state.gain_error, np.abs(gain), state.shift_error, np.abs(shift))
    return Numbers.stacked((gain, shift), (bars[0] + LOOSE * eps * bars[1], bars[2] + LOOSE * eps * bars[3]))
