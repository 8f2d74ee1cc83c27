"""ATen operators in ONNX's terms: what the rules need to know of each call, and which arguments hold its constants.

One file per family, with one entry per operator in its table. What is not listed there, or is called as no rule covers
it, stays opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx


@dataclass(frozen=True)
class Operand:
    """One input in ONNX's order: an argument of the call (``index`` within a list).

    ``default`` stands for an argument that is absent. ``shape`` is how ONNX wants the argument's data laid out.
    """

    name: str
    index: int | None = None
    default: Callable[[], np.ndarray[Any, Any]] | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class OnnxView:
    """A call as the operator ``op`` of ONNX. ``arguments``: which ones hold the attributes that a fold may set.

    ``shapes`` names arguments of which only the shape is read.
    """

    op: str
    inputs: Sequence[Operand | np.ndarray[Any, Any] | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    shapes: Sequence[str] = ()


class Call:
    """The arguments of a call by name, defaults filled in."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node
        self.arguments: dict[str, Any] = {}
        for position, formal in enumerate(_schema(node).arguments):
            if formal.name in node.kwargs:
                self.arguments[formal.name] = node.kwargs[formal.name]
            elif position < len(node.args):
                self.arguments[formal.name] = node.args[position]
            elif formal.has_default_value():
                self.arguments[formal.name] = formal.default_value

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def shape(self, name: str) -> tuple[Any, ...] | None:
        """The dimensions of a tensor argument, symbols among them; None for anything else."""
        value = self[name]
        found = value.meta.get("val") if isinstance(value, fx.Node) else None
        return tuple(found.shape) if isinstance(found, Tensor) else None

    def rank(self, name: str) -> int | None:
        """The number of axes of a tensor argument."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def integers(self, name: str, length: int) -> list[int] | None:
        """A list of numbers, one number repeated; None if one is only known at run time."""
        found = self[name]
        found = [found] * length if isinstance(found, int) else list(found or [])
        found = found * length if len(found) == 1 else found
        return found if len(found) == length and all(type(n) is int for n in found) else None


def _schema(node: fx.Node) -> Any:
    return node.target._schema  # type: ignore[union-attr]


Translation = Callable[[Call], OnnxView | None]


def plain(op: str, name: str = "self", **attrs: Any) -> Translation:
    """An operator of one tensor, by its name alone."""
    return lambda _: OnnxView(op, [Operand(name)], attrs)
