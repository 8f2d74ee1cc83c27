"""What a failed verification says of single folds: which to give up, so that the others can be kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bnfold.planner.plan import Fold, Plan
from bnfold.results.verification import LayerResult, Verification
from bnfold.rules.reasons import Refusal
from bnfold.wording import figure


def folds_at_fault(plans: list[Plan], verification: Verification) -> dict[str, str]:
    """Return the folds that a failed check names by a layer that they changed: their targets' names, and why."""
    wrong = {layer.node: layer for layer in reversed(verification.layers) if layer.verdict == "fail" and layer.node}
    found: dict[str, str] = {}
    for planned in plans:
        for fold in planned.folds:
            layer = next((wrong[name] for name in _names_around(fold) if name in wrong), None)
            if layer is not None:
                found[fold.op.target.name] = _why(layer)
    return found


def explained(plans: list[Plan], dropped: Mapping[str, str]) -> list[Plan]:
    """Return the plans, with the true reason for each fold that was ``dropped``: the name of its target, and why."""
    return [
        replace(
            planned,
            outcomes=[
                (op, Refusal("verification", dropped[op.target.name]))
                if op.target.name in dropped and not isinstance(outcome, Fold)
                else (op, outcome)
                for op, outcome in planned.outcomes
            ],
        )
        for planned in plans
    ]


def _names_around(fold: Fold) -> Iterator[str]:
    """The names by which the folded model may know what a fold has changed; nodes without one go by their output."""
    for node in (*fold.changed, *fold.op.nodes):
        yield node.name
        yield from (value.name for value in node.live_outputs)
    yield fold.op.source.name


def _why(layer: LayerResult) -> str:
    by = "" if layer.error_ratio is None else f", error ratio {figure(layer.error_ratio)}"
    return f"the {layer.check} check fails at {layer.name}{by}"
