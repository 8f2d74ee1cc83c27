"""Operators between two affine ones, for ``test_placements.py``: each with what its rule tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from build import node
from numpy.typing import NDArray
from onnx import NodeProto

Dim = int | str


@dataclass(frozen=True)
class Between:
    """Some nodes from ``c`` to ``d``, the constants that they read, and the shape of ``c``."""

    name: str
    nodes: Sequence[NodeProto]
    held: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    shape: tuple[Dim, ...] = (2, 8, 4, 6)
    opset: int = 17


EVERY: list[Between] = []


def add(
    name: str,
    *nodes: NodeProto,
    shape: tuple[Dim, ...] = (2, 8, 4, 6),
    opset: int = 17,
    **held: NDArray[np.generic] | Sequence[int],
) -> None:
    """Register one; plain lists are integers."""
    arrays = {key: value if isinstance(value, np.ndarray) else np.array(value, "i8") for key, value in held.items()}
    EVERY.append(Between(name, nodes, arrays, shape, opset))


def some(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    """Numbers between 0.5 and 2, half of them negative."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape), "f4")


def one(op: str, *more: str, **attributes: object) -> NodeProto:
    """A node from ``c`` and further inputs to ``d``."""
    return node(op, ["c", *more], ["d"], **attributes)


from placements import activations, arithmetic, blocks, layers, layout, positions  # noqa: E402, F401 - the table
