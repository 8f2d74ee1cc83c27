"""The original's values, found by what they are: the one that a folded value equals, or was meant to be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnfold.ir.graph import Value
from bnfold.verification.equivalence.abstract_values import AbstractValue, aligned
from bnfold.verification.equivalence.interpreter import Interpreter

UNROUNDED = frozenset({"Cast", "CastLike", "Identity"})
"""What computes nothing: numbers that only come in a narrow type are no reason to judge others by it."""

WIDTHS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def width_of(value: Value) -> int:
    """The bits of a value's float type; 0 if it has none, or it is not known."""
    return 0 if value.dtype is None else WIDTHS.get(value.dtype.name, 0)


class ValueIndex:
    """The values of a model that has been read: by name, and by the class that they belong to."""

    def __init__(self, original: Interpreter) -> None:
        self.named = {value.name: value for value in original.abstract}
        self._forms = original.abstract
        self._members: dict[int, list[Value]] = {}
        self._coarsest: dict[int, float] = {}
        self._widest: dict[int, int] = {}
        for value, abstract in original.abstract.items():
            base = abstract.base
            self._members.setdefault(base, []).append(value)
            if value.producer is not None and value.producer.op not in UNROUNDED:
                self._coarsest[base] = max(self._coarsest.get(base, 0.0), original.eps(value))
            self._widest[base] = max(self._widest.get(base, 0), width_of(value))

    def abstract_values(self, base: int) -> list[AbstractValue]:
        """The forms of the values of one class."""
        return [self._forms[value] for value in self._members.get(base, ())]

    def coarsest(self, base: int) -> float:
        """The largest distance from 1 to the next number in the types of a class's values."""
        return self._coarsest.get(base, 0.0)

    def equal(self, abstract: AbstractValue, eps: float, name: str) -> Value | None:
        """The value that ``form`` equals, that of the same name if several do."""
        namesake = self.named.get(name)
        if namesake is not None and self._agrees(abstract, namesake, eps):
            return namesake
        return next(self._equals(abstract, eps), None)

    def narrowed(self, abstract: AbstractValue, width: int, eps: float) -> Value | None:
        """A value that ``form`` equals, if all of them are held in more bits than ``width``."""
        if not width or self._widest.get(abstract.base, 0) <= width:
            return None
        same = list(self._equals(abstract, eps))
        return same[0] if same and all(width_of(value) > width for value in same) else None

    def meant(self, abstract: AbstractValue, eps: float, name: str, *, nearest: bool) -> Value | None:
        """The value that ``form`` was meant to be: the one that it equals, or equals in most of its channels.

        ``nearest``: the nearest one will do, in however few channels they agree.
        """
        if (same := self.equal(abstract, eps, name)) is not None:
            return same
        best, share = None, 0.0 if nearest else 0.5
        for value in self._members.get(abstract.base, ()):
            part = _shared(abstract, self._forms[value], eps)
            closer = (
                nearest
                if best is None
                else abstract.distance(self._forms[value]) < abstract.distance(self._forms[best])
            )
            if part > share or (part == share and closer):
                best, share = value, part
        return best

    def _equals(self, abstract: AbstractValue, eps: float) -> Iterator[Value]:
        return (value for value in self._members.get(abstract.base, ()) if self._agrees(abstract, value, eps))

    def _agrees(self, abstract: AbstractValue, value: Value, eps: float) -> bool:
        same = abstract.agrees(self._forms[value], eps)
        return same is not None and bool(same.all())


def _shared(abstract: AbstractValue, other: AbstractValue, eps: float) -> float:
    """In how many of their channels both are one, as a part of 1; those that are nothing in both don't count."""
    agreed = abstract.agrees(other, eps)
    if agreed is None:
        return 0.0
    gain, gain2, same = aligned(abstract.map.gain, other.map.gain, agreed)
    same, alive = np.broadcast_arrays(same, (gain != 0) | (gain2 != 0))
    return float(same[alive].mean() if alive.any() else same.mean())
