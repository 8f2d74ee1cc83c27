"""The original's values, found by what they are: the one that a folded value equals, or was meant to be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnfold.ir.graph import Value
from bnfold.verification.equivalence.abstract_values import Form, aligned
from bnfold.verification.equivalence.interpreter import Reader

UNROUNDED = frozenset({"Cast", "CastLike", "Identity"})
"""What computes nothing: numbers that only come in a narrow type are no reason to judge others by it."""

WIDTHS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def width_of(value: Value) -> int:
    """The bits of a value's float type; 0 if it has none, or it is not known."""
    return 0 if value.dtype is None else WIDTHS.get(value.dtype.name, 0)


class Known:
    """The values of a model that has been read: by name, and by the class that they belong to."""

    def __init__(self, original: Reader) -> None:
        self.named = {value.name: value for value in original.forms}
        self._forms = original.forms
        self._members: dict[int, list[Value]] = {}
        self._coarsest: dict[int, float] = {}
        self._widest: dict[int, int] = {}
        for value, form in original.forms.items():
            base = form.base
            self._members.setdefault(base, []).append(value)
            if value.producer is not None and value.producer.op not in UNROUNDED:
                self._coarsest[base] = max(self._coarsest.get(base, 0.0), original.eps(value))
            self._widest[base] = max(self._widest.get(base, 0), width_of(value))

    def forms(self, base: int) -> list[Form]:
        """The forms of the values of one class."""
        return [self._forms[value] for value in self._members.get(base, ())]

    def coarsest(self, base: int) -> float:
        """The largest distance from 1 to the next number in the types of a class's values."""
        return self._coarsest.get(base, 0.0)

    def equal(self, form: Form, eps: float, name: str) -> Value | None:
        """The value that ``form`` equals, that of the same name if several do."""
        namesake = self.named.get(name)
        if namesake is not None and self._agrees(form, namesake, eps):
            return namesake
        return next(self._equals(form, eps), None)

    def narrowed(self, form: Form, width: int, eps: float) -> Value | None:
        """A value that ``form`` equals, if all of them are held in more bits than ``width``."""
        if not width or self._widest.get(form.base, 0) <= width:
            return None
        same = list(self._equals(form, eps))
        return same[0] if same and all(width_of(value) > width for value in same) else None

    def meant(self, form: Form, eps: float, name: str, *, nearest: bool) -> Value | None:
        """The value that ``form`` was meant to be: the one that it equals, or equals in most of its channels.

        ``nearest``: the nearest one will do, in however few channels they agree.
        """
        if (same := self.equal(form, eps, name)) is not None:
            return same
        best, share = None, 0.0 if nearest else 0.5
        for value in self._members.get(form.base, ()):
            part = _shared(form, self._forms[value], eps)
            closer = nearest if best is None else form.distance(self._forms[value]) < form.distance(self._forms[best])
            if part > share or (part == share and closer):
                best, share = value, part
        return best

    def _equals(self, form: Form, eps: float) -> Iterator[Value]:
        return (value for value in self._members.get(form.base, ()) if self._agrees(form, value, eps))

    def _agrees(self, form: Form, value: Value, eps: float) -> bool:
        same = form.agrees(self._forms[value], eps)
        return same is not None and bool(same.all())


def _shared(form: Form, other: Form, eps: float) -> float:
    """In how many of their channels both are one, as a part of 1; those that are nothing in both don't count."""
    agreed = form.agrees(other, eps)
    if agreed is None:
        return 0.0
    gain, gain2, same = aligned(form.map.gain, other.map.gain, agreed)
    same, alive = np.broadcast_arrays(same, (gain != 0) | (gain2 != 0))
    return float(same[alive].mean() if alive.any() else same.mean())
