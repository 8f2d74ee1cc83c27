"""The original's values, found by their states: the one that a folded value equals, or stands for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnfold.ir.graph import Value
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import aligned

UNROUNDED = frozenset({"Cast", "CastLike", "Identity"})
"""Operators that compute nothing: numbers that are only cast to a narrow type are no reason to judge others by it."""

WIDTHS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def width_of(value: Value) -> int:
    """Return the bits of the mantissa of a value's float type; 0 if it has none, or it is not known."""
    return 0 if value.dtype is None else WIDTHS.get(value.dtype.name, 0)


class ValueIndex:
    """The values of a model that has been read: by name, and by the class that they belong to."""

    def __init__(self, original: Interpreter) -> None:
        self.named = {value.name: value for value in original.states}
        self._states = original.states
        self._members: dict[int, list[Value]] = {}
        self._coarsest: dict[int, float] = {}
        self._widest: dict[int, int] = {}
        for value, state in original.states.items():
            base = state.base
            self._members.setdefault(base, []).append(value)
            if value.producer is not None and value.producer.op not in UNROUNDED:
                self._coarsest[base] = max(self._coarsest.get(base, 0.0), original.eps(value))
            self._widest[base] = max(self._widest.get(base, 0), width_of(value))

    def states_of(self, base: int) -> list[AbstractValue]:
        """Return the states of the values of one class."""
        return [self._states[value] for value in self._members.get(base, ())]

    def coarsest(self, base: int) -> float:
        """Return the largest distance from 1 to the next number in the types of a class's values."""
        return self._coarsest.get(base, 0.0)

    def equal(self, state: AbstractValue, eps: float, name: str) -> Value | None:
        """Return the value that ``state`` equals, that of the same name if several do."""
        namesake = self.named.get(name)
        if namesake is not None and self._agrees(state, namesake, eps):
            return namesake
        return next(self._equals(state, eps), None)

    def narrowed(self, state: AbstractValue, width: int, eps: float) -> Value | None:
        """Return a value that ``state`` equals, if all such values are held in more bits than ``width``."""
        if not width or self._widest.get(state.base, 0) <= width:
            return None
        same = list(self._equals(state, eps))
        return same[0] if same and all(width_of(value) > width for value in same) else None

    def meant(self, state: AbstractValue, eps: float, name: str, *, nearest: bool) -> Value | None:
        """Return the value that ``state`` stands for: the one that it equals, or equals in most of its channels.

        ``nearest``: the nearest one, in however few channels they agree.
        """
        if (same := self.equal(state, eps, name)) is not None:
            return same
        best, share = None, 0.0 if nearest else 0.5
        for value in self._members.get(state.base, ()):
            part = _shared(state, self._states[value], eps)
            closer = (
                nearest if best is None else state.distance(self._states[value]) < state.distance(self._states[best])
            )
            if part > share or (part == share and closer):
                best, share = value, part
        return best

    def _equals(self, state: AbstractValue, eps: float) -> Iterator[Value]:
        return (value for value in self._members.get(state.base, ()) if self._agrees(state, value, eps))

    def _agrees(self, state: AbstractValue, value: Value, eps: float) -> bool:
        same = state.agrees(self._states[value], eps)
        return same is not None and bool(same.all())


def _shared(state: AbstractValue, other: AbstractValue, eps: float) -> float:
    """Return the share of channels in which both are equal; those of gain 0 in both don't count."""
    agreed = state.agrees(other, eps)
    if agreed is None:
        return 0.0
    gain, gain2, same = aligned(state.affine.gain, other.affine.gain, agreed)
    same, alive = np.broadcast_arrays(same, (gain != 0) | (gain2 != 0))
    return float(same[alive].mean() if alive.any() else same.mean())
