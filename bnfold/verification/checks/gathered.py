"""What further runs say of the rounding error to expect, for outputs whose first error ratio is above the limit.

One run of the original is one sample of its own error, a poor estimate where few of the output's numbers have errors of
their own (behind a bottleneck, in few channels). Here the original is run more often, each time with other rounding
errors of the same size. And the fold may lose what the original does not: running sums that start at a large bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.measurement.decisions import Decided, as_if
from bnfold.verification.measurement.error_model import ErrorAccumulator
from bnfold.verification.measurement.measured import Measured, Outputs
from bnfold.verification.runtime.perturbation import ALL_MOVED, AS_ROUNDED
from bnfold.verification.runtime.runner import Run, RunFailed

RUNS = 4
"""How often the original is run again."""


@dataclass(frozen=True)
class Compared:
    """One output of one sample in both models, in float64 and in the correctly rounded fold; all of one shape.

    ``again`` and ``accumulated``: see :meth:`bnfold.verification.measurement.error_model.ErrorAccumulator.add`.
    """

    original: NDArray[Any]
    folded: NDArray[Any]
    reference: NDArray[Any]
    correctly_rounded: NDArray[Any]
    again: list[NDArray[Any]] = field(default_factory=list)
    accumulated: NDArray[Any] | None = None

    def add_to(self, accumulator: ErrorAccumulator) -> None:
        """Add these numbers; those that are not finite everywhere are left out."""
        arrays = [self.folded, self.original, self.reference, self.correctly_rounded, *self.again]
        finite = np.logical_and.reduce([np.isfinite(array) for array in arrays])
        folded, original, reference, best, *again = (np.where(finite, a.astype(np.float64), 0.0) for a in arrays)
        lost = None if self.accumulated is None else np.where(finite, self.accumulated, 0.0)
        accumulator.add(folded, original, reference, best, lost, again)


@dataclass(frozen=True)
class Gathered:
    """Further runs of the original, by seed and mode, and what sums lose in the fold, by sample."""

    again: list[list[Outputs]]
    accumulated: Outputs | None
    correctly_rounded: Outputs | None

    def beside(self, compared: Compared, number: int, sample: int, name: str) -> Compared:
        """Return what was compared, with these runs of the same output."""
        shape = compared.reference.shape
        runs = [outputs[number][sample][name] for outputs in self.again if number < len(outputs)]
        lost = None
        if self.accumulated is not None and self.correctly_rounded is not None and compared.folded.dtype.kind == "f":
            noisy, clean = self.accumulated[sample][name], self.correctly_rounded[sample][name]
            lost = noisy - clean if noisy.shape == clean.shape == shape else None
        return replace(compared, again=[run for run in runs if run.shape == shape], accumulated=lost)


def decided_by_mode(found: Measured, folded: Run) -> list[Decided | None]:
    """Return for each mode the float64 runs that decide as the models did, None where there are none."""
    try:
        return found.further.decided(found.original, folded)
    except RunFailed:
        return [None] * len(found.modes)


def decided_as_run(decided: Decided, original: NDArray[Any], folded: NDArray[Any], sample: int, name: str) -> Compared:
    """Return one output beside what follows in float64 from the decisions that the runs made.

    Integers that follow from decisions have no error: the folded model's must be the very ones.
    """
    reference, best = decided.reference[sample][name], decided.correctly_rounded[sample][name]
    if folded.dtype.kind != "f":
        return Compared(reference.astype(folded.dtype), folded, reference, reference)
    best = best if best.shape == reference.shape else reference
    run = as_if(original, decided.original[sample][name], reference)
    return Compared(run, folded, reference, best, [], decided.accumulated[sample].get(name))


def gathered(found: Measured) -> Gathered | None:
    """Make further runs; None where they can't be made."""
    try:
        fallback = found.reference.fallback_reason is not None
        share = ALL_MOVED if fallback else AS_ROUNDED
        again = found.further.again(list(range(1, RUNS + 1)), share)
        return Gathered(again, None if fallback else found.further.accumulated(), found.reference.correctly_rounded)
    except RunFailed:
        return None
