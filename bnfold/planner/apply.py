"""Apply a plan: compute every new weight in float64, round it once, and hand the edits to the graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Editor, Graph, Node, Value
from bnfold.ir.op_views import split_operands
from bnfold.numerics.linear import Scaled
from bnfold.numerics.rounding import is_float, rounded
from bnfold.planner.activation_sizes import ActivationSizes
from bnfold.planner.balancing import MOST_BALANCED, Balance, balances, too_large
from bnfold.planner.branch_merging import Merge
from bnfold.planner.dead_ends import dead_ends_hidden
from bnfold.planner.plan import Plan, ResidualOp
from bnfold.planner.planner import plan
from bnfold.planner.underflow import Outputs, judge, output_sizes
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL, NotRepresentable, Rewrite
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
    """Plan ``graph`` and compute its new weights; a fold whose weights don't fit their type is planned around.

    Where powers of two may make them fit, it is tried with those first. Large weights are computed for that, and again
    when they are written; ``defer_range_checks`` leaves it to the writing to find out, which raises NotRepresentable.
    """
    refused: dict[str, Refusal] = {}
    balanced: dict[str, list[Balance]] = {}
    with dead_ends_hidden(graph):
        while True:
            planned = plan(
                graph, only=only, skip=skip, refused=refused, balanced=balanced, scales=scales, threshold=threshold
            )
            weighted, unfit = _compute(planned, defer_range_checks)
            if not unfit:
                return weighted
            for name, (refusal, options) in unfit.items():
                tried = balanced.setdefault(name, [])
                untried = [one for one in options if all(one.value is not other.value for other in tried)]
                if untried and len(tried) < MOST_BALANCED:
                    tried.append(untried[0])
                else:
                    refused[name] = refusal


def _compute(planned: Plan, defer_range_checks: bool) -> tuple[WeightedPlan, dict[str, tuple[Refusal, list[Balance]]]]:
    """The weights of a plan, and the folds whose weights don't fit: why, and what may help."""
    weighted = WeightedPlan(planned, {}, {}, {})
    sizes = ActivationSizes()
    unfit: dict[str, tuple[Refusal, list[Balance]]] = {}
    for node in planned.touched():
        rule = lookup(node.op)
        if rule is None or rule.rewrite is None:
            continue
        try:
            rewrite = rule.rewrite(node, planned.current)
        except (NotEvaluable, ZeroDivisionError, NotRepresentable, *INCONSISTENT_MODEL) as error:
            unfit[_responsible_fold(planned, node)] = _cause(node, error), []
            continue
        errors = []
        for (owner, index), values in rewrite.constants.items():
            outputs = partial(output_sizes, node, planned.current, sizes)
            try:
                stored = _stored(owner, index, values, defer_range_checks, outputs)
            except NotRepresentable as error:
                errors.append(error)
                continue
            if isinstance(stored, Scaled) or not _is_there(owner, index, stored):
                weighted.weights[owner, index] = stored
        weighted.attributes.update(rewrite.attributes)
        if errors:
            unfit[_responsible_fold(planned, node)] = errors[0].refusal, _balances_of(node, rewrite, errors)
    for fold in planned.folds:
        for node, index in fold.op.reads:
            if (node, index) not in weighted.weights:
                known = _constant(node, index)
                if isinstance(known, Refusal):
                    unfit[fold.op.target.name] = known, []
                else:
                    weighted.weights[node, index] = known
        if fold.residual is not None:
            data = _operand(planned, fold.residual)
            if isinstance(data, Refusal):
                unfit[fold.op.target.name] = data, []
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


def _balances_of(node: Node, rewrite: Rewrite, errors: list[NotRepresentable]) -> list[Balance]:
    """The powers of two that may bring a weight and its bias into their type's range."""
    wanted = [error.exponents for error in errors if error.exponents is not None]
    if not wanted or len({exponents.size for exponents in wanted}) > 1:
        return []
    lowest, highest = np.min(wanted, axis=0), np.max(wanted, axis=0)
    dtype = _type_of(node, 1)
    weights = [values for values in rewrite.constants.values() if isinstance(values, Scaled)]
    inputs = None if dtype is None or not weights else too_large(weights[0].largest_per_input().reshape(-1), dtype)
    return balances(node, np.where(lowest < 0, lowest, highest), inputs)


def _responsible_fold(planned: Plan, node: Node) -> str:
    """The fold to give up where ``node`` can't store its constants: of those that changed it, the widest."""
    folds = planned.folds
    changed = (
        [fold for fold in folds if node in fold.balanced] or [fold for fold in folds if node in fold.into] or folds
    )
    return max(changed, key=lambda fold: len(fold.into)).op.target.name


def _stored(
    node: Node,
    index: int,
    values: NDArray[np.float64] | Scaled,
    defer_range_checks: bool = False,
    outputs: Outputs | None = None,
) -> NDArray[Any] | Scaled:
    """``values`` as the type of the constant they replace. Raises NotRepresentable.

    A weight that is still to be computed stays so. It is judged by the sizes of what its layer makes (``outputs``), or
    when it is written: the graph is edited then and no sizes are known, so that a doubtful weight raises.
    """
    where = f"input {index} of {node.label}"
    dtype = _type_of(node, index)
    if dtype is None:
        raise NotRepresentable(Refusal("unknown-shape", f"the type of {where} is not known"))
    if isinstance(values, Scaled):
        weight = replace(values, dtype=dtype)
        if defer_range_checks:
            return replace(weight, judge=partial(judge, where, weight, None))
        for _ in replace(weight, judge=partial(judge, where, weight, outputs)).blocks():
            pass
        return weight
    new = rounded(values, dtype)
    if np.isfinite(new).all() or _is_there(node, index, new):  # a bias of minus infinity hides a class
        return new
    refusal = Refusal("overflow", f"{where} would not be finite in {dtype}")
    raise NotRepresentable(refusal, too_large(np.abs(values.reshape(-1)), dtype) if index == 2 else None)


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


def _constant(node: Node, index: int) -> NDArray[Any] | Refusal:
    """A constant that is computed, in the type that it is read in."""
    value = node.inputs[index]
    assert value is not None
    if value.dtype is None:
        return Refusal("unknown-shape", f"the type of {value.name!r} is not known")
    try:
        data = rounded(node.graph.constants.evaluate(value), value.dtype)
    except NotEvaluable as error:
        return Refusal("dynamic-weights", str(error))
    return data if np.isfinite(data).all() else Refusal("overflow", f"{value.name!r} is not finite in {value.dtype}")


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
    try:
        weight, bias = _stored(merge.conv, 1, merge.weight), _stored(merge.conv, 2, merge.bias)
    except NotRepresentable as error:
        return error.refusal
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
        if fold.residual is None and not fold.op.reads:  # else nothing reads it any more
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
