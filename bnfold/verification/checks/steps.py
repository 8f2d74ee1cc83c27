"""The outputs of a quantized network, where they are off: judged by the steps of its integers, not by float rounding.

A right fold flips integers that lie near the middle between two; behind some layers that is as large as the noise of
quantization itself, and no error ratio of floats explains it. So each quantized tensor is judged where it is made, from
the true integers before it, and the outputs only have to be no farther off than flips can bring them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.options import Tolerances
from bnfold.results.verification import Judgement, OutputResult
from bnfold.verification.measurement.measured import Measured
from bnfold.verification.measurement.quantized_steps import QuantizedSteps, StepErrors, reach
from bnfold.verification.runtime.runner import Run, RunFailed
from bnfold.wording import figure


def judged_in_steps(
    results: list[OutputResult], found: Measured, folded: Run, tolerances: Tolerances
) -> tuple[list[OutputResult], str | None]:
    """Return the outputs that do not pass, judged by steps where the model is quantized, and what to say of that."""
    if found.quantized is None or all(result.verdict == "pass" for result in results):
        return results, None
    try:
        steps = found.quantized()
    except RunFailed as error:
        return results, f"the quantized tensors can't be run: {error}"
    if steps is None:
        return results, None
    wrong = [tensor for tensor in steps.tensors if tensor.wrong]
    if wrong:
        worst = max(wrong, key=lambda tensor: tensor.folded / reach(tensor.level))
        results = [replace(r, verdict="fail") if r.level == worst.level else r for r in results]
        where = f" at level {worst.level}" if worst.level != "disable" else ""
        return results, f"quantized tensor {worst.name!r}: {_figure(worst)}{where}"
    if steps.reason is not None:
        return [r if r.verdict == "pass" else replace(r, verdict="inconclusive") for r in results], steps.reason
    judged = [r if r.verdict == "pass" else _judged(r, steps, found, folded, tolerances) for r in results]
    worst = max(
        steps.tensors,
        key=lambda tensor: tensor.folded / reach(tensor.level),
        default=StepErrors("", "disable", 0.0, 0.0),
    )
    return judged, f"quantized tensors at most {_figure(worst)}"


def _judged(
    result: OutputResult, steps: QuantizedSteps, found: Measured, folded: Run, tolerances: Tolerances
) -> OutputResult:
    """Judge an output by what flipped integers do to it."""
    number = next(n for n, mode in enumerate(found.modes) if (mode.level, mode.tf32) == (result.level, result.tf32))
    name, sums = result.name, np.zeros(3)
    for original, other, true, flipped in zip(
        found.original.outputs[number],
        folded.outputs[number],
        found.reference.outputs,
        steps.flipped[number],
        strict=True,
    ):
        a, b, t, f = (np.asarray(sample[name], np.float64) for sample in (original, other, true, flipped))
        if len({x.shape for x in (a, b, t, f)}) > 1 or not np.isfinite([a, b, t, f]).all():
            return result
        sums += [np.square(error).sum() for error in (b - a, f - t, t)]
    difference, allowed, size = np.sqrt(sums)
    ratio = difference / allowed if allowed else float("inf")
    limit = tolerances.of(result.kind or "normal", found.reference.fallback_reason is not None)
    verdict: Judgement = "pass" if ratio <= limit else "fail"
    return replace(
        result,
        error_ratio=float(ratio),
        verdict=verdict,
        detection_limit=float(limit * allowed / size) if size else 0.0,
    )


def _figure(tensor: StepErrors) -> str:
    return f"{figure(tensor.folded)} quantization steps beyond rounding (limit {figure(reach(tensor.level))})"
