"""Where a folded model does not compute what its original computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node


@dataclass(frozen=True)
class Mismatch:
    """A node of the folded model that does not compute what the original computes.

    ``numbers``: the operator is there, its numbers (or those of the layers before it) are others. ``attributes``: the
    operator is there with other attributes. ``unknown``: nothing in the original computes this from the same values.
    ``counterpart`` is the node of the original that it was compared with.
    """

    kind: Literal["numbers", "attributes", "unknown"]
    node: Node
    counterpart: Node | None
    channels: list[int]

    @property
    def name(self) -> str:
        """Operator and name of the node, for a message."""
        return f"{self.node.op} {self.node.name!r}"


def channels_of(wrong: NDArray[np.bool_]) -> list[int]:
    """Return the channels that are wrong, on the last axis along which a transform varies."""
    if wrong.ndim == 0 or wrong.size == 1:
        return []
    others = tuple(range(wrong.ndim - 1))
    return [int(channel) for channel in np.flatnonzero(wrong.any(axis=others))]
