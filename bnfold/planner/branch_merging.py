"""Merge parallel branches of one input into one convolution (on request; RepVGG's reparameterisation).

Before::                                   After::

    x ─┬─ Conv 3×3 ── BatchNorm ─┐             x ── Conv 3×3 ── y
       ├─ Conv 1×1 ── BatchNorm ─┼─ Add ── y
       └──────────── BatchNorm ──┘

All branches are linear in x and see the same centre, so their kernels add up: a smaller kernel is one with
zeros around it, a BatchNorm alone is a 1×1 kernel with its gains on the diagonal. Exact for odd kernels padded
by half on each side, of equal strides and groups. Source: Ding et al., "RepVGG", 2021, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.op_views import ConvView, constant, constant_shape
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import AffineOp, budget_for_large, candidates_of
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import not_constant

Array = NDArray[np.float64]

MOST_CANCELLED = 2.0**12
"""How many times larger than what is left of them the biases of branches may be."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One summand: a convolution (None: the input itself), then a transform per channel; ``nodes`` are all of it."""

    conv: Node | None
    transform: Affine
    nodes: tuple[Node, ...]
    ops: tuple[AffineOp, ...]


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
    by_target = {op.target: op for op in candidates_of(graph)}
    used: set[Node] = set()
    found: list[Merge] = []
    budget = budget_for_large(graph)
    for node in reversed(graph.nodes):
        if node.op not in ("Add", "Sum") or node in used or not node.outputs or node.outputs[0] is None:
            continue
        leaves = _leaves(node)
        if leaves is None or used.intersection(leaves[1]):
            continue
        merge = _merge(node, *leaves, by_target)
        if merge is not None and merge.weight.size <= budget:
            budget -= merge.weight.size
            found.append(merge)
            used.update(merge.nodes)
    return found[::-1]


def _leaves(node: Node) -> tuple[list[Value], list[Node]] | None:
    """The summands under a tree of sums, and the tree."""
    values: list[Value] = []
    tree, pending = [node], list(node.inputs)
    while pending:
        value = pending.pop()
        if value is None:
            return None
        producer = value.producer
        if producer is not None and producer.op in ("Add", "Sum") and _private(value):
            tree.append(producer)
            pending.extend(producer.inputs)
        else:
            values.append(value)
    return values, tree


def _private(value: Value) -> bool:
    return len(value.consumers) == 1 and not value.is_output and not value.captured


def _merge(top: Node, values: list[Value], tree: list[Node], by_target: dict[Value, AffineOp]) -> Merge | None:
    branches = []
    sources = set()
    for value in values:
        branch, source = _branch(value, by_target)
        branches.append(branch)
        sources.add(source)
    convs = [branch.conv for branch in branches if branch.conv is not None]
    if len(branches) < 2 or len(sources) != 1 or not convs or len(set(convs)) != len(convs):
        return None
    try:
        largest = max(convs, key=lambda conv: constant_shape(conv, 1)[2:])
        summed = _summed(branches, largest)
    except (NotEvaluable, IndexError):
        return None
    if summed is None:
        return None
    nodes = (*tree, *(node for branch in branches for node in branch.nodes if node is not largest))
    ops = tuple(op for branch in branches for op in branch.ops)
    return Merge(largest, top.output, nodes, ops, *summed)


def _branch(value: Value, by_target: dict[Value, AffineOp]) -> tuple[Branch, Value | None]:
    """The branch that ends in ``value``, as far up as it is private, and what it starts from."""
    ops: list[AffineOp] = []
    transform, nodes = IDENTITY, []
    while (op := by_target.get(value)) is not None and op.transform is not None and _private(value):
        ops.append(op)
        nodes += op.nodes
        transform = transform.after(op.transform)
        value = op.source
    conv = value.producer
    if conv is not None and conv.op == "Conv" and _private(value):
        return Branch(conv, transform, (*nodes, conv), tuple(ops)), conv.inputs[0]
    return Branch(None, transform, tuple(nodes), tuple(ops)), value


def _summed(branches: list[Branch], largest: Node) -> tuple[Array, Array] | None:
    """Weight and bias of the sum, with the geometry of ``largest``; None where the branches don't fit together."""
    shape = constant_shape(largest, 1)
    outputs, group = shape[0], largest.attr("group", 1)
    strides = largest.attr("strides", [1] * (len(shape) - 2))
    weight, bias, added = np.zeros(shape), np.zeros(outputs), np.zeros(outputs)
    for branch in branches:
        vectors = branch.transform.vectors(1, outputs)
        if vectors is None:
            return None
        conv = branch.conv
        if conv is None:
            if outputs != shape[1] * group or any(stride != 1 for stride in strides):
                return None
            kernel, offset = _identity(outputs, shape[1], len(shape) - 2), np.zeros(outputs)
        else:
            fits = conv.attr("group", 1) == group and _centred(conv, strides)
            if not fits or conv in rounding_nodes(conv.graph) or not_constant(conv, 1, 2):
                return None
            kernel = constant(conv, 1).astype(np.float64)
            offset = constant(conv, 2).astype(np.float64) if conv.input(2) is not None else np.zeros(outputs)
        if kernel.shape[:2] != shape[:2] or any(a > b for a, b in zip(kernel.shape[2:], shape[2:], strict=True)):
            return None
        gain = vectors[0].reshape(-1, *[1] * (len(shape) - 1))
        weight[_centre(kernel.shape, shape)] += gain * kernel
        bias += vectors[0] * offset + vectors[1]
        added += np.abs(vectors[0] * offset)
    rows = np.sqrt(np.square(weight).reshape(outputs, -1).sum(axis=1))
    # Biases that cancel round the branches on purpose (bnfold.rules.rounding_additions): one sum would not.
    rounds = (added > MOST_CANCELLED * np.maximum(np.abs(bias), rows)).mean() > 0.5
    return None if rounds else (weight, bias)


def _centred(conv: Node, strides: list[int]) -> bool:
    """Return True for an odd kernel padded by half on each side: it sees the same centres as a 1×1 kernel."""
    view = ConvView.of(conv)
    kernel = view.shape[2:]
    ones = [1] * len(kernel)
    half = [size // 2 for size in kernel]
    return (
        all(size % 2 for size in kernel)
        and view.auto_pad == "NOTSET"
        and view.pads() == half * 2
        and conv.attr("strides", ones) == strides
        and conv.attr("dilations", ones) == ones
    )


def _identity(channels: int, inner: int, rank: int) -> Array:
    """The 1×1 kernel, in groups of ``inner`` input channels, that changes nothing."""
    kernel = np.zeros((channels, inner, *[1] * rank))
    kernel[np.arange(channels), np.arange(channels) % inner] = 1
    return kernel


def _centre(small: tuple[int, ...], large: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice((b - a) // 2, (b - a) // 2 + a) for a, b in zip(small, large, strict=True))
