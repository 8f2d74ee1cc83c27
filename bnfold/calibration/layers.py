"""The BatchNorms of a network whose statistics can be computed again, and the levels in which that goes on.

The level of a node is the number of such layers that its input has passed through. Nodes of one level can run as soon
as the statistics of the level below are known; what later levels need of it are the level's
*live values*.
Each node runs once per batch, whether one level goes through all batches before the next or each batch through all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Graphs, Node, Value
from bnfold.numerics.batchnorm import BatchNorm, per_activation, per_channel
from bnfold.rules import normalization
from bnfold.rules.reasons import Refusal


@dataclass(frozen=True, eq=False)
class Layer:
    """One BatchNormalization: what it normalises, what it holds, and whether it normalises by the batch as yet."""

    node: Node
    source: Value
    stored: BatchNorm
    trains: bool

    def holds(self, *arrays: NDArray[Any]) -> bool:
        """Return True if the numbers are finite in the types that its statistics are stored in."""
        for value in self.node.inputs[3:5]:
            assert value is not None
            with np.errstate(over="ignore", invalid="ignore"):
                if not all(np.isfinite(array.astype(value.dtype)).all() for array in arrays):
                    return False
        return True

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of an activation over which its statistics go."""
        return per_channel(ndim) if self.stored.mean.ndim == 1 else per_activation()


def layers_of(graphs: Graphs) -> tuple[list[Layer], list[tuple[Node, Refusal]]]:
    """The layers of the main graph, in its order; and the BatchNormalizations that must be kept, and why."""
    found: list[Layer] = []
    kept: list[tuple[Node, Refusal]] = []
    for scope in graphs.scopes:
        for node in scope.nodes:
            if node.op == "BatchNormalization" and node.inputs and node.inputs[0] is not None and node.live_outputs:
                layer = _layer(node, node.inputs[0], scope is graphs.scopes[0])
                if isinstance(layer, Layer):
                    found.append(layer)
                else:
                    kept.append((node, layer))
    return found, kept


def _layer(node: Node, source: Value, main: bool) -> Layer | Refusal:
    trains = normalization.in_training(node)
    if held(source):
        return Refusal("dynamic-weights", f"{node.name!r} normalizes a constant")
    if not main:
        return Refusal(
            "control-flow", f"{node.name!r} is inside of a subgraph, whose inputs can't be seen from outside"
        )
    if trains and any(value.consumers or value.is_output for value in node.live_outputs[1:]):
        return Refusal("training-mode", f"the updated statistics of {node.name!r} are read by others")
    try:
        stored = normalization.stored(node)
    except NotEvaluable as error:
        return Refusal("dynamic-statistics", str(error))
    return stored if isinstance(stored, Refusal) else Layer(node, source, stored, bool(trains))


@dataclass
class Level:
    """Nodes to run, in order; the layers that are observed after it; what has to be kept for the levels above."""

    nodes: list[Node] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    live_values: list[Value] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What is being measured."""
        return ", ".join(layer.node.name for layer in self.layers[:2]) + (" …" if len(self.layers) > 2 else "")


Reads = Callable[[Node], Iterable[Value]]
"""The values of the main graph that a node reads, those of graphs nested in it included."""


def divide(graph: Graph, layers: list[Layer], reads: Reads) -> list[Level]:
    """The levels of a graph, as far as the layers need it."""
    own = {layer.node: layer for layer in layers}
    needed = _needed(layers, reads)
    rank: dict[Node, int] = {}

    def level_of(value: Value) -> int:
        """0 for an input or a constant."""
        return rank.get(value.producer, 0) if value.producer is not None else 0

    for node in graph.nodes:
        if node in needed or node in own:
            below = max((level_of(value) for value in reads(node)), default=0)
            rank[node] = below + 1 if node in own else below
    levels = [Level() for _ in range(max((rank[layer.node] for layer in layers), default=0))]
    for node in graph.nodes:
        if node in needed:
            levels[rank[node]].nodes.append(node)
    for layer in layers:
        levels[rank[layer.node] - 1].layers.append(layer)
    last: dict[Value, int] = {}
    for node in graph.nodes:
        for value in reads(node) if node in needed or node in own else ():
            last[value] = max(last.get(value, 0), rank[node])
    for value, until in last.items():
        if not held(value):
            for index in range(level_of(value), min(until, len(levels))):
                levels[index].live_values.append(value)
    return levels


def _needed(layers: list[Layer], reads: Reads) -> set[Node]:
    """The nodes that some layer's input comes from; those that make constants are not among them."""
    pending = [layer.source.producer for layer in layers]
    found: set[Node] = set()
    while pending:
        node = pending.pop()
        if node is None or node in found:
            continue
        found.add(node)
        pending += [value.producer for value in reads(node) if not held(value)]
    return found


def held(value: Value) -> bool:
    """True for what every run has without being fed: constants, and initializers that a caller could override."""
    return value.tensor is not None or value.graph.constants.is_constant(value)


def reading(graphs: Graphs) -> Reads:
    """How to tell what a node reads, for the nodes of the main graph."""
    main = graphs.scopes[0]

    def reads(node: Node) -> Iterator[Value]:
        for value in node.inputs:
            if value is not None and value.graph is main:
                yield value
        for _, body in graphs.bodies.get(node, ()):
            for inner in body.nodes:
                yield from reads(inner)
            yield from (value for value in body.outputs if value.graph is main)

    return reads
