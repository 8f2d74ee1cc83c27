"""The outputs check where outputs depend on random numbers: no two runs give the same, so no run can judge them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from bnfold.options import Tolerances
from bnfold.results.verification import CheckResult, OutputResult
from bnfold.verification.checks.outputs import check_outputs as check_compared
from bnfold.verification.measurement.measured import Measured, Outputs
from bnfold.verification.runtime.runner import Run, RunFailed


def check_outputs(found: Measured, tolerances: Tolerances) -> tuple[CheckResult, list[OutputResult]]:
    """Judge the outputs that can be compared; the check is inconclusive about others, and left to the proof."""
    names = [name for name in found.original.names if name in found.random]
    if not names or isinstance(found.folded, RunFailed):
        return check_compared(found, tolerances)
    why = f"{names[0]!r} depends on random numbers, so that only the proof can judge it"
    if len(names) == len(found.original.names):
        return CheckResult("outputs", "inconclusive", why, {"random": names}), []
    check, results = check_compared(_without(found, names), tolerances)
    figures = {**check.figures, "random": names}
    if check.verdict != "pass":
        return replace(check, figures=figures), results
    return CheckResult("outputs", "inconclusive", f"{why}; other outputs: {check.detail}", figures), results


def _without(found: Measured, names: Collection[str]) -> Measured:
    """Return what was measured, without some of the outputs."""

    def run(one: Run) -> Run:
        kept = [name for name in one.names if name not in names]
        return replace(one, names=kept, outputs=[_others(mode, names) for mode in one.outputs])

    reference = replace(
        found.reference,
        outputs=_others(found.reference.outputs, names),
        correctly_rounded=None
        if found.reference.correctly_rounded is None
        else _others(found.reference.correctly_rounded, names),
    )
    folded = run(found.folded) if isinstance(found.folded, Run) else found.folded
    return replace(
        found,
        original=run(found.original),
        folded=folded,
        reference=reference,
        perturbed=lambda: _others(found.perturbed(), names),
    )


def _others(samples: Outputs, names: Collection[str]) -> Outputs:
    return [{name: data for name, data in sample.items() if name not in names} for sample in samples]
