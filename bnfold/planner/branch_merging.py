"""Merge parallel branches of one input into one convolution (on request; RepVGG's reparameterisation).

Before::                                   After::

    x ─┬─ Conv 3×3 ── BatchNorm ─┐             x ── Conv 3×3 ── y
       ├─ Conv 1×1 ── BatchNorm ─┼─ Add ── BatchNorm ── y
       └──────────── BatchNorm ──┘

All branches are linear in x and see the same positions, so their kernels add up: a smaller kernel is one with zeros
around it, a BatchNorm alone is a 1×1 kernel with its gains on the diagonal, finer groups are coarser ones with zeros
between them. What follows the sum, differences and factors between nested sums are composed before the one rounding.
Sources: Ding et al., "RepVGG", 2021, section 3.3; Vasu et al., "MobileOne", 2023; "FastViT", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import AffineOp, budget_for_large, candidates_of, elementwise
from bnfold.planner.kernel_taps import Taps
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import INCONSISTENT_MODEL, not_constant

Array = NDArray[np.float64]

MOST_CANCELLED = 2.0**12
"""How many times larger than what is left of them the biases of branches may be."""

SUMS = frozenset({"Add", "Sum", "Sub"})
NEGATED = Affine.of(-1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Branch:
    """One summand: a convolution (None: the input itself) times a gain per channel."""

    conv: Node | None
    gain: Affine


@dataclass(eq=False)
class Sum:
    """What a value is: branches of ``sources``, and ``shifts`` (the shifts of these transforms), by ``nodes``."""

    branches: list[Branch] = field(default_factory=list)
    shifts: list[Affine] = field(default_factory=list)
    sources: set[Value | None] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    ops: list[AffineOp] = field(default_factory=list)

    def add(self, conv: Node | None, gain: Affine, source: Value | None) -> None:
        """Add a branch."""
        self.branches.append(Branch(conv, gain))
        self.sources.add(source)


@dataclass(frozen=True, eq=False)
class Merge:
    """Several branches whose sum ``conv`` computes alone, with ``weight`` and ``bias`` (float64)."""

    conv: Node
    target: Value
    nodes: tuple[Node, ...]
    ops: tuple[AffineOp, ...]
    weight: Array
    bias: Array


def merges(graph: Graph) -> list[Merge]:
    """Return what can be merged in ``graph``, each node in at most one merge."""
    steps = {op.target: op for op in candidates_of(graph) if op.transform is not None and op.refusal is None}
    used: set[Node] = set()
    found: list[Merge] = []
    budget = budget_for_large(graph)
    for top in reversed(_sums_of_one_input(graph, steps)):
        if top.producer in used:
            continue
        try:
            whole = _expanded(top, steps)
        except ValueError:  # transforms along so many axes that no array holds them
            continue
        merge = None if used.intersection(whole.nodes) else _merge(top, whole)
        if merge is not None and merge.weight.size <= budget:
            budget -= merge.weight.size
            found.append(merge)
            used.update(merge.nodes, [merge.conv])
    return found[::-1]


def _sums_of_one_input(graph: Graph, steps: dict[Value, AffineOp]) -> list[Value]:
    """The sums all of whose summands start from one value, and what follows such a sum, in order; without numbers."""
    origins: dict[Value, Value | None] = {}
    sums: dict[Value, None] = {}

    def origin(value: Value | None) -> Value | None:
        return origins[value] if value is not None and value in origins and _private(value) else value

    for node in graph.nodes:
        made = node.outputs[0] if node.outputs else None
        if made is None:
            continue
        if (source := _source_of_step(made, steps)) is not None:
            origins[made] = origin(source)
            if source in sums and _private(source) and origins[made] is not None:
                sums[made] = None
        elif node.op == "Conv":
            origins[made] = node.inputs[0]
        elif node.op in SUMS:
            starts = {origin(value) for value in node.inputs}
            origins[made] = starts.pop() if len(starts) == 1 and len(node.inputs) > 1 else None
            if origins[made] is not None:
                sums[made] = None
    return list(sums)


def _source_of_step(value: Value, steps: dict[Value, AffineOp]) -> Value | None:
    """What a transform per channel by constants makes ``value`` from; None if it is made otherwise."""
    if value in steps:
        return steps[value].source
    own = None if value.producer is None else elementwise(value.producer)
    return None if own is None else own[0]


def _expanded(top: Value, steps: dict[Value, AffineOp]) -> Sum:
    """The branches of a sum of one input: as far up as each value has one consumer. Raises ValueError."""
    whole = Sum()
    pending: list[tuple[Value, Affine]] = [(top, IDENTITY)]
    while pending:
        value, gain = pending.pop()
        node = value.producer
        if node is None or not (value is top or _private(value)):
            whole.add(None, gain, value)
        elif (step := _step(value, steps)) is not None:
            nodes, source, transform = step
            composed = gain.after(transform)
            whole.shifts.append(composed)
            whole.nodes += nodes
            whole.ops += [steps[value]] if value in steps else []
            pending.append((source, composed.gain_only()))
        elif node.op in SUMS:
            whole.nodes.append(node)
            for place, summand in enumerate(node.inputs):
                assert summand is not None
                negative = node.op == "Sub" and place == 1
                pending.append((summand, gain.after(NEGATED) if negative else gain))
        elif node.op == "Conv":
            whole.nodes.append(node)
            whole.add(node, gain, node.inputs[0])
        else:
            whole.add(None, gain, value)
    return whole


def _step(value: Value, steps: dict[Value, AffineOp]) -> tuple[list[Node], Value, Affine] | None:
    if value in steps:
        op = steps[value]
        assert op.transform is not None
        return op.nodes, op.source, op.transform
    own = None if value.producer is None else elementwise(value.producer)
    return None if own is None or value.producer is None else ([value.producer], *own)


def _private(value: Value) -> bool:
    return len(value.consumers) == 1 and not value.is_output and not value.captured


def _merge(top: Value, whole: Sum) -> Merge | None:
    convs = [branch.conv for branch in whole.branches if branch.conv is not None]
    if len(whole.branches) < 2 or len(whole.sources) != 1 or not convs:
        return None
    rounding = rounding_nodes(convs[0].graph)
    if any(conv in rounding or not_constant(conv, 1, 2) for conv in convs):
        return None
    try:
        for conv in sorted(convs, key=lambda conv: prod(constant_shape(conv, 1)), reverse=True):
            summed = _summed(whole, conv)
            if summed is not None:
                nodes = tuple(node for node in whole.nodes if node is not conv)
                return Merge(conv, top, nodes, tuple(whole.ops), *summed)
    except (NotEvaluable, *INCONSISTENT_MODEL):
        pass
    return None


def _summed(whole: Sum, widest: Node) -> tuple[Array, Array] | None:
    """Weight and bias of the sum, with the geometry of ``widest``; None where the branches don't fit together."""
    own = Taps.of(widest)
    if own is None:
        return None
    itself = Taps.of_itself(own.inputs, len(own.kernel))
    taps = [itself if branch.conv is None else Taps.of(branch.conv) for branch in whole.branches]
    gains = [branch.gain.vectors(1, own.outputs) for branch in whole.branches]
    shifts = [transform.vectors(1, own.outputs) for transform in whole.shifts]
    if not all(each is not None and own.covers(each) for each in taps):
        return None
    bias = np.zeros(own.outputs)
    for shift in shifts:
        if shift is None:
            return None
        bias += shift[1]
    weight = np.zeros((own.outputs, own.inputs // own.group, *own.kernel))
    added = np.zeros(own.outputs)
    for branch, each, gain in zip(whole.branches, taps, gains, strict=True):
        if gain is None or each is None:
            return None
        conv, column = branch.conv, gain[0].reshape(-1, *[1] * (weight.ndim - 1))
        kernel = np.ones((own.outputs, 1, *each.kernel)) if conv is None else constant(conv, 1).astype(np.float64)
        weight += own.spread(column * kernel, each)
        if conv is not None and conv.input(2) is not None:
            offset = gain[0] * constant(conv, 2).astype(np.float64)
            bias += offset
            added += np.abs(offset)
    rows = np.sqrt(np.square(weight).reshape(own.outputs, -1).sum(axis=1))
    # Biases that cancel round the branches on purpose (bnfold.rules.rounding_additions): one sum would not.
    rounds = (added > MOST_CANCELLED * np.maximum(np.abs(bias), rows)).mean() > 0.5
    return None if rounds else (weight, bias)
