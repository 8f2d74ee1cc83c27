"""Which option would fold a BatchNorm that is kept: found by planning again with it, where it can matter at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bnfold.errors import BnfoldError
from bnfold.options import PlanOptions
from bnfold.planner.branch_merging import SUMS
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal

Key = tuple[str, str]
"""What an affine operator is known by in any plan of a model: its graph and its output."""

OUT_OF_REACH = frozenset(
    {"skipped", "verification", "training-mode", "degenerate-variance", "dynamic-statistics", "unsupported-dtype"}
)
"""Reasons that no option of a plan answers: the user's or a check's decision, or there is no fixed transform."""


def key(op: AffineOp) -> Key:
    """Return what ``op`` is known by."""
    return op.source.graph.name, op.target.name


def would_fold_with(
    prepare: Callable[[PlanOptions], Any], plans: list[Plan], options: PlanOptions
) -> dict[Key, list[str]]:
    """Return for each kept BatchNorm the options, by their names in PlanOptions, any of which folds it by itself.

    ``prepare`` plans with other options. It is called once for each option that is not set and that a kept
    BatchNorm's neighbours allow: never for a model that folds completely.
    """
    kept = [op for planned in plans for op, outcome in planned.outcomes if _may_fold(op, outcome)]
    found: dict[Key, list[str]] = {}
    for name in _worth_trying(kept, plans, options):
        chosen: dict[str, Any] = {name: True}
        try:
            tried = prepare(replace(options, **chosen)).plans
        except BnfoldError:
            continue
        folds = {key(op) for planned in tried for op, outcome in planned.outcomes if isinstance(outcome, Fold)}
        for op in kept:
            if key(op) in folds:
                found.setdefault(key(op), []).append(name)
    return found


def _may_fold(op: AffineOp, outcome: Fold | Refusal) -> bool:
    return isinstance(outcome, Refusal) and op.form != "scale" and outcome.reason not in OUT_OF_REACH


def _worth_trying(kept: list[AffineOp], plans: list[Plan], options: PlanOptions) -> Iterator[str]:
    """Yield the options that are not set, where the graph has what they are about."""
    if not kept:
        return
    behind = {consumer.op for op in kept for consumer in op.target.consumers}
    before = {op.source.producer.op for op in kept if op.source.producer is not None}
    if not options.merge and (behind | before) & SUMS:
        yield "merge"
    if not options.threshold and "Relu" in behind:
        yield "threshold"
    if not options.freeze and any(_has_overridable(planned) for planned in plans):
        yield "freeze"


def _has_overridable(planned: Plan) -> bool:
    return any(value is not None and value.overridable for node in planned.graph.nodes for value in node.inputs)
