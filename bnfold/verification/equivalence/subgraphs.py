"""Cut a folded model and its original into the subgraphs that differ: say Conv and BatchNorm, and one Conv.

A subgraph begins and ends at values that both models share, so that both versions can be run on the same input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.rounding import accumulated_error, ulp
from bnfold.verification.equivalence.congruence import MOVES
from bnfold.verification.equivalence.findings import Alignment, outputs_side_by_side, suspect_layers
from bnfold.verification.equivalence.multiples import LOOSE
from bnfold.verification.equivalence.subgraph import End, Subgraph

WITH_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm", "Linear"})
"""Operators whose third input is a bias."""

MOST_SUBGRAPHS = 1000
"""Subgraphs that are run; of more, this many are taken at even distances."""

CHANNELS_LAST = frozenset({"MatMul", "Gemm", "Linear", "LSTM", "GRU", "RNN"})
"""Operators whose channels lie on the last axis of what they make; on axis 1 elsewhere."""


def subgraphs(found: Alignment, hidden: Collection[str] = (), *, proved: bool = False) -> list[Subgraph]:
    """The subgraphs in which the main graphs differ, in order. They don't begin or end at ``hidden`` values.

    ``proved``: the folded model is right by what is stored. A layer whose output equals nothing of the original is
    then known to hold a transform of it, maybe in a few of its channels.
    """
    graph = found.folded.graphs.scopes[0]
    changed = [
        node
        for node in graph.nodes
        if node not in found.folded.untouched and not all(map(graph.constants.is_constant, node.live_outputs))
    ]
    made = []
    matched = {
        value: same
        for value in found.folded.states
        if value.name not in hidden and (same := found.folded.exactly(value)) is not None
    }
    sides = outputs_side_by_side(found.original.graphs, found.folded.graphs)
    ends = {mine: theirs for theirs, mine in sides}
    boundary = _Boundary(found, matched, hidden, suspect_layers(found), proved, ends)
    for region in _regions(changed, matched):
        subgraph = _subgraph(region, boundary)
        if subgraph is not None:
            made.append(subgraph)
    step = max(1, -(-len(made) // MOST_SUBGRAPHS))
    return made[::step]


def _regions(changed: list[Node], matched: dict[Value, Value]) -> Iterator[list[Node]]:
    """Yield groups of nodes that are joined by values which the original does not have."""
    leader: dict[Node, Node] = {node: node for node in changed}

    def lead(node: Node) -> Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for node in changed:
        for value in node.inputs:
            if value is not None and value not in matched and value.producer in leader:
                leader[lead(node)] = lead(value.producer)
    regions: dict[Node, list[Node]] = {}
    for node in changed:
        regions.setdefault(lead(node), []).append(node)
    yield from regions.values()


@dataclass(frozen=True, eq=False)
class _Boundary:
    """Where subgraphs may begin and end: at ``matched`` values, which both models share, never at ``hidden`` ones.

    ``interface``: the outputs of the folded model with those of the original, which must be equal.
    """

    found: Alignment
    matched: dict[Value, Value]
    hidden: Collection[str]
    suspected: set[Node]
    proved: bool
    interface: dict[Value, Value]

    def inputs(self, region: list[Node]) -> dict[Value, Value] | None:
        """Return what a region reads, with the original's values; None if the original does not have all of it."""
        inside, constants = set(region), region[0].graph.constants
        ends: dict[Value, Value] = {}
        for value in dict.fromkeys(value for node in region for value in _reads(node, self.found)):
            if value is None or constants.is_constant(value) or value.producer in inside:
                continue
            if value not in self.matched or value.graph is not region[0].graph:
                return None
            ends[value] = self.matched[value]
        return ends

    def outputs(self, region: list[Node]) -> dict[Value, Value]:
        """Return what a region makes for others, and what its layers make, with the values of the original."""
        inside = set(region)
        outputs: dict[Value, Value] = {}
        for value in (value for node in region for value in node.live_outputs):
            seen = value.is_output or value.captured or any(consumer not in inside for consumer in value.consumers)
            counterpart = self._counterpart(value)
            if value.name not in self.hidden and seen and _can_end(counterpart):
                outputs[value] = counterpart
        for node in inside & self.found.folded.layers.keys():
            meant = None if node.output.name in self.hidden else self._meant(node)
            if _can_end(meant):
                outputs[node.output] = meant
        return outputs

    def _counterpart(self, value: Value) -> Value | None:
        """Return the original's value to compare with: an equal one, or what callers know as the same output.

        Inside, a name says nothing of what a value holds: a fold keeps it, and moves a transform through it. Behind
        something unknown it is the best guess.
        """
        folded = self.found.folded
        known = self.matched.get(value) or self.interface.get(value)
        return folded.index.named.get(value.name) if known is None and value in folded.tainted else known

    def _meant(self, node: Node) -> Value | None:
        """Return the value that a layer's output stands for, where it is not matched."""
        folded, value = self.found.folded, node.output
        state = folded.layers[node].output
        if value in self.matched or state is not folded.raw.get(value):
            return None
        if self.proved:
            return folded.index.equal(state, folded.eps(value), value.name)
        return folded.meant(state, value, nearest=node in self.suspected)


def _can_end(value: Value | None) -> TypeGuard[Value]:
    """Return True for a value of the original that its main graph computes."""
    return value is not None and value.graph.name == "" and value.producer is not None


def _subgraph(region: list[Node], boundary: _Boundary) -> Subgraph | None:
    if all(node.op in MOVES and set(node.live_outputs) <= boundary.matched.keys() for node in region):
        return None  # no number is computed: what is equal may stand anywhere in the original
    ends, outputs, found = boundary.inputs(region), boundary.outputs(region), boundary.found
    if not ends or not outputs:
        return None
    inside = set(region)
    layers = [node for node in region if node in found.folded.layers] or region
    name = ", ".join(node.name for node in layers[:3]) + (" …" if len(layers) > 3 else "")
    last = layers[-1]
    axis = (last.output.rank or 2) - 1 if last.op in CHANNELS_LAST else 1
    unsure = found.folded.guessed | (found.folded.tainted - boundary.matched.keys())
    guessed = any(value in unsure for value in (*ends, *outputs))
    return Subgraph(
        name,
        last.name,
        [_end(counterpart, value) for value, counterpart in ends.items()],
        [_end(counterpart, value) for value, counterpart in outputs.items()],
        axis,
        *(_sizes(found, last) if len(layers) == 1 else ([], [])),
        _accumulated(found, layers),
        not guessed and not any(m.kind == "unknown" and m.node in inside for m in found.mismatches),
    )


def _reads(node: Node, found: Alignment) -> Iterator[Value | None]:
    """Yield what a node reads, by itself and inside its subgraphs of control flow."""
    yield from node.inputs
    for _, graph in found.folded.graphs.bodies.get(node, ()):
        values = [*(v for inner in graph.nodes for v in _reads(inner, found)), *graph.outputs]
        yield from (value for value in values if value is not None and value.graph is node.graph)


def _end(original: Value, folded: Value) -> End:
    types = [
        TensorProto.FLOAT if value.dtype is None else int(helper.np_dtype_to_tensor_dtype(value.dtype))
        for value in (original, folded)
    ]
    return End(original.name, folded.name, *types)


def _sizes(found: Alignment, node: Node) -> tuple[list[float], list[float]]:
    """Return the sizes of a layer's shift terms and rows."""
    layer = found.folded.layers.get(node)
    meant = None if layer is None else found.folded.meant(layer.output, node.output, nearest=True)
    if layer is None or meant is None:
        return [], []
    target = found.original.states[meant]
    eps = float(ulp(np.ones(()), layer.dtype))
    rows = layer.rows().values
    norms = np.sqrt(np.square(rows).sum(axis=-1)).reshape(-1)
    return (target.shift_error / (LOOSE * eps)).reshape(-1).tolist(), norms.tolist()


def _accumulated(found: Alignment, nodes: list[Node]) -> list[float]:
    """Return what running sums that start at the biases of these layers lose, in each channel of the last."""
    losses: list[NDArray[np.float64]] = []
    for node in nodes:
        plain = node.op.removeprefix("com.microsoft::Fused") in WITH_BIAS and node in found.folded.layers
        bias = node.input(2) if plain else None
        if bias is not None and node.graph.constants.is_constant(bias):
            starts = node.attr("beta", 1.0) * constant(node, 2).astype(np.float64).reshape(-1)
            layer = found.folded.layers[node]
            losses.append(accumulated_error(starts, layer.rows().values.shape[-1], layer.dtype))
    alike = [np.square(loss) for loss in losses if loss.size == losses[-1].size]
    return np.sqrt(np.sum(alike, axis=0)).tolist() if alike else []
