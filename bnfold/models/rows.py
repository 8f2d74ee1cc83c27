"""The rows of an inspection, made from the plans of either frontend."""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node
from bnfold.models.alternatives import Key, key
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.results.folding import BatchNormRow
from bnfold.results.health import Finding, of_parameters
from bnfold.rules import normalization
from bnfold.rules.reasons import Refusal


def rows(
    plans: list[Plan], done: bool = False, would_fold_with: Mapping[Key, list[str]] | None = None
) -> list[BatchNormRow]:
    """Return one row per affine operator, in the order of the graphs; ``would_fold_with``: the options for the kept."""
    options = would_fold_with or {}
    return [_row(op, outcome, done, options.get(key(op), [])) for planned in plans for op, outcome in planned.outcomes]


def _row(op: AffineOp, outcome: Fold | Refusal, done: bool, options: list[str]) -> BatchNormRow:
    folds = isinstance(outcome, Fold)
    dtype = op.source.dtype
    return BatchNormRow(
        name=op.name,
        output=op.target.name,
        graph=op.source.graph.name or "main",
        form=op.form,
        channels=_channels(op),
        dtype=None if dtype is None else dtype.name,
        status=("folded" if done else "foldable") if folds else "kept",
        direction=outcome.direction if isinstance(outcome, Fold) else None,
        into=[node.name for node in outcome.changed] if isinstance(outcome, Fold) else [],
        via=list(outcome.via) if isinstance(outcome, Fold) else [],
        reason=_reason(outcome) if isinstance(outcome, Refusal) else None,
        health=_health(op),
        would_fold_with=options,
    )


def _reason(refusal: Refusal) -> dict[str, str]:
    sides = {} if refusal.sides is None else dict(zip(("previous", "next"), refusal.sides, strict=True))
    return {"code": refusal.reason, "detail": refusal.detail, **sides}


def _channels(op: AffineOp) -> int | None:
    if op.statistics is not None:
        return int(op.statistics.mean.shape[0])
    return None if op.transform is None else int(op.transform.gain.size)


def _health(op: AffineOp) -> list[Finding]:
    """Return what is odd about the statistics: often a bug of training or export, which a fold would make permanent."""
    if op.form != "BatchNormalization" or op.reads:
        return []
    return _of_node(op.nodes[0]) if op.statistics is None else of_parameters(op.statistics)


def _of_node(node: Node) -> list[Finding]:
    """Return what is wrong, or odd, with the parameters of a BatchNormalization."""
    found = [Finding("training-mode")] if normalization.in_training(node) else []
    try:
        bn = normalization.stored(node)
    except NotEvaluable:
        return found
    return found if isinstance(bn, Refusal) else found + of_parameters(bn)
