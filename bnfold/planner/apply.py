"""Apply a plan: compute every new weight in float64, round it once, and hand the edits to the graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import NotEvaluable
from bnfold.ir.graph import Editor, Graph, Node, Value
from bnfold.ir.op_views import split_operands
from bnfold.numerics.linear import Scaled
from bnfold.numerics.rounding import is_float, rounded
from bnfold.planner.activation_sizes import ActivationSizes
from bnfold.planner.branch_merging import Merge
from bnfold.planner.plan import Plan, ResidualOp
from bnfold.planner.planner import plan
from bnfold.planner.underflow import Outputs, judge, output_sizes
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL, NotRepresentable
from bnfold.rules.table import lookup


@dataclass(frozen=True)
class WeightedPlan:
    """A plan whose new weights have all been computed and found fit, ready to be written."""

    plan: Plan
    weights: dict[tuple[Node, int], NDArray[Any] | Scaled]
    attributes: dict[tuple[Node, str], Any]
    operands: dict[ResidualOp, NDArray[Any]]


def compute_weights(
    graph: Graph,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    scales: bool = True,
    threshold: bool = False,
    defer_range_checks: bool = False,
) -> WeightedPlan:
    """Plan ``graph`` and compute its new weights; a fold whose weights overflow is dropped, and planned around.

    Large weights are computed for that, and again when they are written; ``defer_range_checks`` leaves it to the
    writing to find out, which raises NotRepresentable.
    """
    refused: dict[str, Refusal] = {}
    while True:
        planned = plan(graph, only=only, skip=skip, refused=refused, scales=scales, threshold=threshold)
        weighted, unfit = _compute(planned, defer_range_checks)
        if not unfit:
            return weighted
        refused.update(unfit)


def _compute(planned: Plan, defer_range_checks: bool) -> tuple[WeightedPlan, dict[str, Refusal]]:
    weighted = WeightedPlan(planned, {}, {}, {})
    sizes = ActivationSizes()
    unfit: dict[str, Refusal] = {}
    for node in planned.touched():
        rule = lookup(node.op)
        if rule is None or rule.rewrite is None:
            continue
        try:
            rewrite = rule.rewrite(node, planned.current)
        except (NotEvaluable, ZeroDivisionError, NotRepresentable, *INCONSISTENT_MODEL) as error:
            unfit[_responsible_fold(planned, node)] = _cause(node, error)
            continue
        for (owner, index), values in rewrite.constants.items():
            outputs = partial(output_sizes, node, planned.current, sizes)
            stored = _stored(owner, index, values, defer_range_checks, outputs)
            if isinstance(stored, Refusal):
                unfit[_responsible_fold(planned, node)] = stored
            elif isinstance(stored, Scaled) or not _is_there(owner, index, stored):
                weighted.weights[owner, index] = stored
        weighted.attributes.update(rewrite.attributes)
    for fold in planned.folds:
        if fold.residual is not None:
            data = _operand(planned, fold.residual)
            if isinstance(data, Refusal):
                unfit[fold.op.target.name] = data
            else:
                weighted.operands[fold.residual] = data
    return weighted, unfit


def _cause(node: Node, error: Exception) -> Refusal:
    """Return why a node can't be rewritten. An invalid model may contradict itself in any way."""
    if isinstance(error, NotRepresentable):
        return error.refusal
    if isinstance(error, NotEvaluable):
        return Refusal("dynamic-weights", str(error))
    if isinstance(error, ZeroDivisionError):
        return Refusal("overflow", f"the transforms around {node.label} vanish")
    return Refusal("unknown-shape", f"{node.label} contradicts the shapes around it")


def _responsible_fold(planned: Plan, node: Node) -> str:
    """The fold to give up where ``node`` can't store its constants: of those that changed it, the widest."""
    changed = [fold for fold in planned.folds if node in fold.into] or planned.folds
    return max(changed, key=lambda fold: len(fold.into)).op.target.name


def _stored(
    node: Node,
    index: int,
    values: NDArray[np.float64] | Scaled,
    defer_range_checks: bool = False,
    outputs: Outputs | None = None,
) -> NDArray[Any] | Scaled | Refusal:
    """``values`` as the type of the constant they replace, or why that type can't hold them.

    A weight that is still to be computed stays so. It is judged by the sizes of what its layer makes (``outputs``), or
    when it is written: the graph is edited then and no sizes are known, so that a doubtful weight raises.
    """
    where = f"input {index} of {node.label}"
    dtype = _type_of(node, index)
    if dtype is None:
        return Refusal("unknown-shape", f"the type of {where} is not known")
    if isinstance(values, Scaled):
        weight = replace(values, dtype=dtype)
        if defer_range_checks:
            return replace(weight, judge=partial(judge, where, weight, None))
        try:
            for _ in replace(weight, judge=partial(judge, where, weight, outputs)).blocks():
                pass
        except NotRepresentable as error:
            return error.refusal
        return weight
    new = rounded(values, dtype)
    if np.isfinite(new).all() or _is_there(node, index, new):  # a bias of minus infinity hides a class
        return new
    return Refusal("overflow", f"{where} would not be finite in {dtype}")


def _is_there(node: Node, index: int, data: NDArray[Any]) -> bool:
    """Return True if a constant holds these numbers already: what a fold does not change stays as it is."""
    value = node.input(index)
    if value is None:
        return False
    return np.array_equal(rounded(node.graph.constants.evaluate(value), data.dtype), data, equal_nan=True)


def _type_of(node: Node, index: int) -> Any:
    """The type of the constant at ``index``, or of the node's floats where there is none yet."""
    old = node.input(index)
    if old is not None:
        return old.dtype
    floats = [v.dtype for v in (*node.inputs[1:], node.inputs[0]) if v is not None and v.dtype is not None]
    return next((dtype for dtype in floats if is_float(dtype)), None)


def _operand(planned: Plan, residual: ResidualOp) -> NDArray[Any] | Refusal:
    """The constant operand of a residual operator, broadcast from the right as ONNX does."""
    source = residual.source
    dtype, rank = source.dtype, source.rank
    if dtype is None or rank is None or residual.nodes[-1].opset < 7:
        return Refusal("unknown-shape", f"the shape of {source.name!r}, or opset 6's broadcast, is not known")
    shift = residual.data(planned.current).shift
    shift = shift.reshape(_without_leading_ones(shift.shape + (1,) * (rank - shift.ndim)))
    new = rounded(shift, dtype)
    if not np.isfinite(new.astype(np.float64)).all():
        return Refusal("overflow", f"the constant at {source.name!r} would not be finite in {dtype}")
    return new


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def write_merge(merge: Merge, editor: Editor) -> Refusal | None:
    """Write one merge into its graph, or say why its weights can't be stored."""
    weight, bias = _stored(merge.conv, 1, merge.weight), _stored(merge.conv, 2, merge.bias)
    if isinstance(weight, Refusal):
        return weight
    if isinstance(bias, Refusal):
        return bias
    editor.set_constant(merge.conv, 1, weight)
    editor.set_constant(merge.conv, 2, bias)
    editor.remove(list(merge.nodes), merge.conv.output, merge.target)
    return None


def write(weighted: WeightedPlan, editor: Editor) -> None:
    """Write a weighted plan into its graph; its weights are handed over one by one, never held twice."""
    for node, index in list(weighted.weights):
        editor.set_constant(node, index, weighted.weights.pop((node, index)))
    for (node, name), value in weighted.attributes.items():
        editor.set_attribute(node, name, value)
    for fold in weighted.plan.folds:
        if fold.residual is None:
            editor.remove(fold.op.nodes, fold.op.source, fold.op.target)
    for residual, data in weighted.operands.items():
        *before, last = residual.nodes
        target = _read_by(last, residual.op, data) if before else None
        if target is not None:
            editor.remove(before, residual.source, target)
        else:
            editor.replace(residual.op, list(residual.nodes), residual.source, data)


def _read_by(node: Node, op: str, data: NDArray[Any]) -> Value | None:
    """Return the value that ``node`` reads if it is ``op`` of that and of ``data`` already; else None."""
    operands = split_operands(node) if node.op == op else None
    return node.inputs[operands[0]] if operands is not None and _is_there(node, operands[1], data) else None
