"""Find the affine operators of a graph: BatchNormalization, decomposed ones, scale chains."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from bnfold.ir.constant_folding import FEW, GROWTH, SMALL
from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.op_views import keeps_type
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.batchnorm import BatchNorm
from bnfold.rules import normalization
from bnfold.rules.operands import as_affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rounding_additions import refusal as rounds
from bnfold.rules.rounding_additions import rounding_nodes

Form = Literal["BatchNormalization", "decomposed", "scale"]


@dataclass(eq=False)
class AffineOp:
    """One or several nodes in a row that compute ``target = transform(source)``: a candidate for removal.

    ``form`` is ``decomposed`` for a chain that multiplies and adds per channel, as exporters write a BatchNorm out;
    ``scale`` for any other chain (a factor alone, or what follows a BatchNorm in caffe's style). ``transform`` is None
    where ``refusal`` says why there is none. A BatchNorm that normalizes a constant, as in a weight standardization, is
    computed once, whatever its statistics are: ``reads`` names the inputs that get the result.
    """

    nodes: list[Node]
    source: Value
    target: Value
    transform: Affine | None
    form: Form
    refusal: Refusal | None = None
    statistics: BatchNorm | None = field(default=None)
    reads: list[tuple[Node, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its last node, or of what it makes."""
        return self.nodes[-1].name

    def answers_to(self, names: frozenset[str]) -> bool:
        """Return True if one of ``names`` is a node's name or output of this operator."""
        return any(node.name in names or node.output.name in names for node in self.nodes)


def candidates_of(graph: Graph) -> list[AffineOp]:
    """The candidates of one graph, in topological order."""
    found: list[AffineOp] = []
    chains: dict[Value, AffineOp] = {}
    rounding = rounding_nodes(graph)
    budget = budget_for_large(graph)
    for node in graph.nodes:
        if node.op == "BatchNormalization":
            if node.inputs and node.inputs[0] is not None and node.outputs and node.outputs[0] is not None:
                found.append(_batch_norm(node, node.inputs[0], budget))
                budget -= _large(found[-1].statistics)
                if node in rounding:
                    found[-1].refusal = found[-1].refusal or rounds(node)
        elif node in rounding or _alone(node, chains):
            continue
        elif (step := elementwise(node)) is not None and _large(step[1]) <= budget:
            source, transform = step
            budget -= _large(transform)
            before, casts = _behind_casts(source, node)
            chain = chains.pop(before, None) if _private(before, (casts or [node])[0]) else None
            whole = None if chain is None or chain.transform is None else _composed(transform, chain.transform)
            if chain is None or whole is None:
                chain, whole = AffineOp([], source, source, IDENTITY, "scale"), transform
                found.append(chain)
                casts = []
            chain.nodes += [*casts, node]
            chain.transform = whole
            chain.target = node.output
            chains[node.output] = chain
    for op in found:
        if op.form == "scale":
            op.form = _form(op)
    return [op for op in found if op.form != "scale" or any(n.op in ("Mul", "Div") for n in op.nodes)]


def _composed(second: Affine, first: Affine) -> Affine | None:
    """One transform after another; None where they vary along so many axes that the chain ends there."""
    try:
        return second.after(first)
    except ValueError:
        return None


def budget_for_large(graph: Graph) -> int:
    """Elements that large transforms may have together: a few bytes can make a constant, and many operators read it."""
    read = {value for node in graph.nodes for value in node.inputs if value is not None and value.tensor}
    return max(FEW, GROWTH * sum(prod(value.tensor_type[1]) for value in read if value.tensor_type))


def _large(held: Affine | BatchNorm | None) -> int:
    size = 0 if held is None else held.gain.size if isinstance(held, Affine) else 4 * held.mean.size
    return size if size > SMALL else 0


def _reads_of_constant(value: Value) -> list[tuple[Node, int]]:
    """The inputs, of nodes that make no constant, that a constant or one made of it reaches; none if others read it."""
    found: list[tuple[Node, int]] = []
    pending, seen = [value], {value}
    constants = value.graph.constants
    while pending:
        current = pending.pop()
        if not constants.is_constant(current) or current.is_output or current.captured:
            return []
        for node in dict.fromkeys(current.consumers):
            if all(map(constants.is_constant, node.live_outputs)):
                pending += [made for made in node.live_outputs if made not in seen]
                seen.update(node.live_outputs)
            else:
                found += [(node, index) for index, read in enumerate(node.inputs) if read is current]
    return found


def _alone(node: Node, chains: dict[Value, AffineOp]) -> bool:
    """Return True for a sum before and behind which no chain goes on: no candidate, whatever its constant holds."""
    if node.op not in ("Add", "Sub") or not node.outputs or node.outputs[0] is None:
        return False
    if any(value is not None and _behind_casts(value, node)[0] in chains for value in node.inputs):
        return False
    behind = node.output
    while _private(behind) and keeps_type(behind.consumers[0]):
        behind = behind.consumers[0].output
    return not _private(behind) or behind.consumers[0].op not in ("Add", "Sub", "Mul", "Div")


def _behind_casts(value: Value, node: Node) -> tuple[Value, list[Node]]:
    """Return what reaches ``node`` through casts that change nothing and that nothing else reads, and those casts."""
    casts: list[Node] = []
    while (cast := value.producer) is not None and keeps_type(cast) and _private(value, node):
        casts.append(cast)
        assert cast.inputs[0] is not None
        value, node = cast.inputs[0], cast
    return value, casts[::-1]


def _batch_norm(node: Node, source: Value, budget: int) -> AffineOp:
    op = AffineOp([node], source, node.output, None, "BatchNormalization")
    if node.graph.constants.is_constant(source):
        op.reads = _reads_of_constant(node.output)
        op.refusal = None if op.reads else Refusal("dynamic-weights", f"{node.name!r} normalizes a constant")
        return op
    try:
        own = normalization.inference(node)
        if isinstance(own, Refusal):
            op.refusal = own
        else:
            op.transform, op.statistics = own[1].affine(), own[1]
            if _large(op.statistics) > budget:
                op.transform = op.statistics = None
                op.refusal = Refusal("dynamic-statistics", f"the parameters of {node.name!r} are absurdly many")
    except NotEvaluable as error:
        op.refusal = Refusal("dynamic-statistics", str(error))
    return op


def elementwise(node: Node) -> tuple[Value, Affine] | None:
    """Return what a node adds to or multiplies with constants, and its transform; None for any other node."""
    if not node.outputs or node.outputs[0] is None:
        return None
    try:
        own = as_affine(node)
    except NotEvaluable:
        return None
    if own is None or isinstance(own, Refusal) or node.graph.constants.is_constant(own[0]):
        return None
    return own if own[1].finite and own[0].dtype is not None and own[0].dtype.kind not in "iub" else None


def _private(value: Value, consumer: Node | None = None) -> bool:
    """Return True if the value has one consumer only; if ``consumer`` is given, that one, and no dead end."""
    alone = len(value.consumers) == 1 and not value.is_output and not value.captured
    return alone and consumer in (None, value.consumers[0])


def _form(op: AffineOp) -> Form:
    kinds = {"factor" if node.op in ("Mul", "Div") else "term" for node in op.nodes if not keeps_type(node)}
    behind = op.source.producer
    assert op.transform is not None
    varies = np.unique(op.transform.gain).size > 1
    if len(kinds) == 2 and varies and not (behind and behind.op == "BatchNormalization"):
        return "decomposed"
    return "scale"
