"""What the planner sees of a network: graphs of nodes and values, whatever file they came from.

A frontend (:mod:`bnfold.frontends.onnx.graph`) builds these objects from its own format, with operators, attributes
and inputs in ONNX's terms, and writes the planner's edits back. Rules and planner know nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.linear import Scaled

Shape = tuple[int | str | None, ...]


@dataclass(eq=False, slots=True)
class Value:
    """A tensor between nodes.

    ``consumers`` holds a node once per input that reads it, at any depth of nesting. ``captured`` says that
    a subgraph reads it. ``tensor`` gives the data of a stored constant (an initializer, an attribute),
    ``part`` some of its elements where not all of it need be read for that.
    """

    name: str
    graph: Graph
    producer: Node | None = None
    consumers: list[Node] = field(default_factory=list)
    is_input: bool = False
    is_output: bool = False
    captured: bool = False
    overridable: bool = False
    tensor: Callable[[], NDArray[Any]] | None = None
    part: Callable[[int, int], NDArray[Any]] | None = None
    tensor_type: tuple[np.dtype[Any] | None, tuple[int, ...]] | None = None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The element type; None where it is unknown."""
        return self.tensor_type[0] if self.tensor_type else self.graph.type_of(self)[0]

    @property
    def shape(self) -> Shape | None:
        """The dimensions, each a number, a symbol or None (unknown); None if not even the rank is known."""
        return self.tensor_type[1] if self.tensor_type else self.graph.type_of(self)[1]

    @property
    def rank(self) -> int | None:
        """The number of axes, if it is known."""
        return None if self.shape is None else len(self.shape)


@dataclass(eq=False, slots=True)
class Node:
    """An operator: ONNX's name (other domains as ``domain::Op``) and the version of its operator set.

    ``settings`` is what tells it apart beside its attributes, for a frontend whose operators have more to say.
    ``draws`` says of an operator that ONNX does not have that it draws random numbers.
    """

    op: str
    name: str
    opset: int
    graph: Graph
    inputs: list[Value | None]
    outputs: list[Value | None]
    attrs: dict[str, Any]
    handle: Any = None
    settings: Hashable = ()
    draws: bool = False

    @property
    def label(self) -> str:
        """The operator and its name, for a message; the name is data from a file."""
        return f"{self.op} {self.name!r}"

    @property
    def is_pure(self) -> bool:
        """False where it may do more than make its outputs: an operator of an unknown domain, or control flow.

        So is a SplitToSequence: what takes its parts may be read as Slices of what it splits.
        """
        return "::" not in self.op and self.op not in ("If", "Loop", "Scan", "SplitToSequence")

    def input(self, index: int) -> Value | None:
        """The value read at ``index``, or None where the input is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def output(self) -> Value:
        """The first output."""
        assert self.outputs and self.outputs[0] is not None
        return self.outputs[0]

    @property
    def live_outputs(self) -> list[Value]:
        """The outputs that are there: named, and not the empty names of absent ones."""
        return [value for value in self.outputs if value is not None]

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or ``default``."""
        return self.attrs.get(name, default)


class Constants(Protocol):
    """The constants of one model (:mod:`bnfold.ir.constant_folding`), and what rules remember of them.

    ``parameters`` and ``rounding`` are for what rules make of constants and ask for again and again.
    """

    parameters: dict[Node, Any]
    rounding: dict[Graph, frozenset[Node]]

    def is_constant(self, value: Value | None) -> bool:
        """Return True if the value is the same on every run; no data is read for that."""

    def is_sum(self, value: Value) -> bool:
        """Return True for a constant whose entries were added up: a runtime's are off by roundings of the largest."""

    def depends_on_overridable(self, value: Value) -> bool:
        """Return True if the value would be constant if no caller could override an initializer."""

    def entries(self, value: Value | None) -> NDArray[np.object_] | None:
        """Return a list of sizes as far as it is known (:mod:`bnfold.ir.shape_values`); None if nothing is."""

    def evaluate(self, value: Value) -> NDArray[Any]:
        """Return the data of a constant, floats that were computed in float64. Raises NotEvaluable."""


Types = Callable[[str], tuple["np.dtype[Any] | None", "Shape | None"]]


@dataclass(eq=False, slots=True)
class Graph:
    """One scope: the main graph or the body of an If, Loop or Scan. ``nodes`` are in topological order.

    ``inputs`` leaves initializers out; an output may be a value of a graph around this one.
    """

    name: str
    types: Types
    constants: Constants
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    handle: Any = None

    def type_of(self, value: Value) -> tuple[np.dtype[Any] | None, Shape | None]:
        """Element type and shape by inference."""
        return self.types(value.name)


class Graphs(Protocol):
    """A model as a frontend shows it: its main graph first, then the graphs nested in it (``bodies``, by node).

    ``outputs_are_named``: callers know the outputs by their names, not by their places.
    """

    scopes: list[Graph]
    bodies: dict[Node, list[tuple[str, Graph]]]
    outputs_are_named: bool


class Editor(Protocol):
    """How a plan is written back. A frontend edits its own format; what is not named keeps its bytes."""

    def set_constant(self, node: Node, index: int, data: NDArray[Any] | Scaled) -> None:
        """Let ``node`` read a new constant at ``index``; the old one stays for its other consumers."""

    def overwrite(self, node: Node, index: int, data: NDArray[Any]) -> None:
        """Like :meth:`set_constant`, but under the old name where no other node reads the constant."""

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of ``node``."""

    def freeze(self, node: Node) -> bool:
        """Let a BatchNormalization in training mode normalise by its stored statistics; False where it can't."""

    def remove(self, nodes: list[Node], source: Value, target: Value) -> None:
        """Delete ``nodes``, which led from ``source`` to ``target``: who read the one reads the other."""

    def replace(self, op: str, nodes: list[Node], source: Value, data: NDArray[Any]) -> None:
        """Put one ``op(source, data)`` in the place of ``nodes``, under the name of what they made."""

    def mark_changed(self, value: Value) -> None:
        """Note that ``value`` holds other numbers from now on: annotations may speak of it."""

    def finish(self) -> None:
        """Drop what the edits leave without a consumer."""
