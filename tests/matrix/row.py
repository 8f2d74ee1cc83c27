"""A row of the operator-context matrix: an operator with certain attributes, between a transform and a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from tests.builders import node

Dim = int | str


@dataclass(frozen=True)
class Row:
    """Some nodes from ``c`` to ``d``, the constants that they read, and the shape of ``c``."""

    name: str
    nodes: Sequence[NodeProto]
    held: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    shape: tuple[Dim, ...] = (2, 8, 4, 6)
    opset: int = 17


def rows_in(rows: list[Row]) -> Callable[..., None]:
    """Return a function that adds a row to the list; plain lists among the constants are integers."""

    def row(
        name: str,
        *nodes: NodeProto,
        shape: tuple[Dim, ...] = (2, 8, 4, 6),
        opset: int = 17,
        **held: NDArray[np.generic] | Sequence[int],
    ) -> None:
        arrays = {key: value if isinstance(value, np.ndarray) else np.array(value, "i8") for key, value in held.items()}
        rows.append(Row(name, nodes, arrays, shape, opset))

    return row


def some(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    """Return numbers between 0.5 and 2, half of them negative."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape), "f4")


def one(op: str, *more: str, **attributes: object) -> NodeProto:
    """Return a node from ``c`` and further inputs to ``d``."""
    return node(op, ["c", *more], ["d"], **attributes)


def arithmetic_rows(row: Callable[..., None], op: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Add the rows that Add, Sub, Mul and Div have alike: with constants of the shapes, and with other values."""
    for shape in shapes:
        row(f"{op} {shape}", one(op, "k"), k=some(*shape))
    row(f"{op} to a constant", node(op, ["k", "c"], ["d"]), k=some(8, 1, 1))
    row(f"{op} of more axes", one(op, "k"), k=some(1, 1, 1, 1, 1))
    row(f"{op} that enlarges", one(op, "k"), shape=(2, 8, 1, 6), k=some(4, 1))
    row(f"{op} of unknown batch", one(op, "k"), shape=("N", 8, 4, 6), k=some(8, 1, 1))
    row(f"{op} that may enlarge", one(op, "k"), shape=("N", 8, 4, 6), k=some(2, 8, 1, 1))
    row(f"{op} of itself", one(op, "c"))
    row(f"{op} stretched", node("ReduceMean", ["c"], ["m"], axes=[2]), one(op, "m"))
    row(f"{op} stretched, first", node("ReduceMean", ["c"], ["m"], axes=[1]), node(op, ["m", "c"], ["d"]))
    row(f"{op} of a branch", node("Sigmoid", ["c"], ["s"]), one(op, "s"))


EVERY_SHAPE = ((), (1,), (6,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 4, 1), (4, 6), (2, 8, 4, 6), (2, 1, 1, 1))
"""Shapes of a constant beside a value of (2, 8, 4, 6)."""
