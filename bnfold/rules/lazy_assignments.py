"""Demands that differ in one: as many as there are operands, and none of them a list as long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bnfold.ir.graph import Value
from bnfold.numerics.affine import Affine
from bnfold.rules.rule import Assignments


class Shifted(Sequence[tuple[Value, Affine]]):
    """``plain``, but for the map at ``place``."""

    def __init__(self, plain: Assignments, place: int, map_: Affine) -> None:
        self._plain, self._place, self._map = plain, place, map_

    def __len__(self) -> int:
        return len(self._plain)

    def __getitem__(self, at: Any) -> Any:
        return [*self][at]

    def __iter__(self) -> Iterator[tuple[Value, Affine]]:
        for place, (value, map_) in enumerate(self._plain):
            yield value, self._map if place == self._place else map_
