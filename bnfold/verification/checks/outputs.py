"""The outputs check: the whole models on whole inputs, each output's error beside the expected rounding error.

An output that differs in kind (its type, its shape, the places of NaN) is different; one whose float64 reference is
itself too uncertain is inconclusive. The error ratio is defined in :mod:`bnfold.verification.measurement.error_model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.numerics.rounding import ulp
from bnfold.options import K_PLAIN, PLAIN_KINDS, Tolerances
from bnfold.results.verification import CheckResult, Judgement, OutputResult
from bnfold.verification.checks.gathered import Compared, Gathered, decided_as_run, decided_by_mode, gathered
from bnfold.verification.checks.steps import judged_in_steps
from bnfold.verification.measurement.decisions import FEW, Decided
from bnfold.verification.measurement.error_model import ErrorAccumulator
from bnfold.verification.measurement.measured import Measured
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.runner import LimitReached, Run, RunFailed
from bnfold.wording import figure, names_change, shape

BLIND = 1.0
"""A detection limit (a relative error) above which a run has shown nothing."""

FLIPS = 4
"""Integers (of an ArgMax, say) that rounding alone may change where the float64 reference changes none."""


def check_outputs(found: Measured, tolerances: Tolerances) -> tuple[CheckResult, list[OutputResult]]:
    """Judge the outputs of two models that were run.

    Each output is judged in each mode, over groups of samples: noise, and inputs on which errors don't average out.
    """
    if isinstance(found.folded, RunFailed):
        stopped = isinstance(found.folded, LimitReached)
        return CheckResult(
            "outputs", "inconclusive" if stopped else "fail", f"the folded model can't be run: {found.folded}"
        ), []
    assert found.folded is not None
    if changed := names_change("output", found.original.names, found.folded.names):
        return CheckResult("outputs", "fail", changed), []
    outcomes = _outcomes(found, found.folded, tolerances)
    wrong = next((o for o in outcomes if isinstance(o, CheckResult) and o.verdict == "fail"), None)
    results = [outcome for outcome in outcomes if isinstance(outcome, OutputResult)]
    if wrong is not None:
        return wrong, results
    doubts = [outcome for outcome in outcomes if isinstance(outcome, CheckResult)]
    unsure = any(result.verdict == "inconclusive" for result in results)
    if unsure and found.reference.fallback_reason is None:
        results = _explained_by_rounding(results, found, found.folded)
    results, steps = judged_in_steps(results, found, found.folded, tolerances)
    if tolerances.rtol is not None or tolerances.atol is not None:
        results = [replace(result, verdict="fail" if _beyond(result, tolerances) else "pass") for result in results]
    check = _verdict(results, doubts, found, tolerances)
    return check if steps is None else replace(check, detail=f"{check.detail}; {steps}"), results


def _outcomes(found: Measured, folded: Run, tolerances: Tolerances) -> list[OutputResult | CheckResult]:
    """Judge each output in each mode: by the first runs, and where these don't pass by more runs."""
    cases = [(number, name) for number in range(len(found.modes)) for name in found.original.names]
    outcomes = {case: _judge(found, folded, *case, tolerances) for case in cases}
    counted = {case for case, outcome in outcomes.items() if _passes_by_count(found, case[1], outcome)}
    if not counted and all(outcome.verdict == "pass" for outcome in outcomes.values()):
        return list(outcomes.values())
    decided = decided_by_mode(found, folded)
    for (number, name), outcome in outcomes.items():
        decisions = decided[number]
        if outcome.verdict != "pass" and decisions is not None and (decisions.flipped or _is_integer(found, name)):
            outcomes[number, name] = _judge_decided(found, folded, number, name, tolerances, decisions)
        elif (number, name) in counted and decisions is not None and decisions.complete:
            judged = _judge_decided(found, folded, number, name, tolerances, decisions)
            outcomes[number, name] = judged if judged.verdict == "fail" else outcome
    flipped = [decisions is not None and decisions.flipped for decisions in decided]
    failing = [
        case
        for case, outcome in outcomes.items()
        if isinstance(outcome, OutputResult) and outcome.verdict == "fail" and not flipped[case[0]]
    ]
    if failing and (more := gathered(found)) is not None:
        outcomes |= {case: _judge(found, folded, *case, tolerances, more=more) for case in failing}
    return list(outcomes.values())


def _passes_by_count(found: Measured, name: str, outcome: OutputResult | CheckResult) -> bool:
    """Return True for integers that differ in few places: rounding may do that, and so may a fault among them."""
    return (
        isinstance(outcome, OutputResult)
        and outcome.verdict == "pass"
        and outcome.error_ratio > 0
        and _is_integer(found, name)
    )


def _judge_decided(
    found: Measured, folded: Run, number: int, name: str, tolerances: Tolerances, decided: Decided
) -> OutputResult | CheckResult:
    """Judge an output by what follows from the decisions that were made, if these are right up to rounding."""
    if (refused := decided.refused(found.slack)) is not None:
        detail = f"{refused[0]!r} selects another element, and rounding does not explain it: "
        return CheckResult("outputs", "fail", f"{detail}error ratio {figure(refused[1])} (limit {FEW:g})")
    result = _judge(found, folded, number, name, tolerances, decided=decided)
    follows = decided.complete and _is_integer(found, name)
    if follows and isinstance(result, OutputResult) and result.verdict == "inconclusive":
        return replace(result, verdict="fail")  # it does not follow from what was decided
    return result


def _is_integer(found: Measured, name: str) -> bool:
    return found.original.outputs[0][0][name].dtype.kind != "f"


def _judge(
    found: Measured,
    folded: Run,
    number: int,
    name: str,
    tolerances: Tolerances,
    *,
    more: Gathered | None = None,
    decided: Decided | None = None,
) -> OutputResult | CheckResult:
    """Judge one output in the mode of this number, over all samples: the worst of the groups of kinds of inputs."""
    mode = found.modes[number]
    where = f"output {name!r}" + (f" at level {mode.level}" if mode.level != "disable" else "")
    groups: dict[bool, list[Compared]] = {}
    for sample, kind in enumerate(found.fed.kinds):
        a, b = found.original.outputs[number][sample][name], folded.outputs[number][sample][name]
        if decided is not None:
            compared = decided_as_run(decided, a, b, sample, name)
            a = compared.original
        else:
            compared = _compared(found, a, b, sample, name)
        if more is not None:
            compared = more.beside(compared, number, sample, name)
        if a.dtype.kind != b.dtype.kind or a.shape != b.shape or (decided is None and a.dtype != b.dtype):
            detail = f"{where} is {b.dtype} {shape(b.shape)}, not {a.dtype} {shape(a.shape)}"
            return CheckResult("outputs", "fail", detail)
        if a.dtype.kind == "f":
            wrong = _specials(a, b, compared.reference)
            if wrong is not None:
                return CheckResult("outputs", wrong[0], f"{where} {wrong[1]}")
        if compared.correctly_rounded.shape != compared.reference.shape:
            compared = replace(compared, correctly_rounded=compared.reference)
        groups.setdefault(kind in PLAIN_KINDS, []).append(compared)
    outcomes = [
        _group(name, mode, arrays, "constant" if plain else "normal", found, tolerances)
        for plain, arrays in groups.items()
    ]
    worst = max(outcomes, key=lambda r: ({"fail": 2, "inconclusive": 1, "pass": 0}[r.verdict], r.error_ratio))
    if worst.verdict == "inconclusive":  # a constant input may vanish in a normalization, which leaves its rounding
        return next((r for r in outcomes if r.verdict == "pass" and r.kind == "normal"), worst)
    return worst


def _compared(found: Measured, a: NDArray[Any], b: NDArray[Any], sample: int, name: str) -> Compared:
    """Return one output of both models beside the float64 runs."""
    reference, best = found.reference.outputs[sample][name], found.reference.correctly_rounded
    other = reference if best is None else best[sample][name]
    if found.reference.fallback_reason is not None:  # the other is a run of the original, with other rounding errors
        return Compared(other, b, reference, reference)
    return Compared(a, b, reference, other)


def _explained_by_rounding(results: list[OutputResult], found: Measured, folded_run: Run) -> list[OutputResult]:
    """Judge again the outputs whose float64 reference is too uncertain: can rounding explain how they differ?

    A network may be far from its float64 run because it loses digits; then moving its numbers by an ulp moves its
    outputs as far as a fold does. Or because it rounds on purpose; then that moves hardly anything, and a fold that
    removes the rounding differs many times as much.
    """
    try:
        perturbed = found.perturbed()
    except RunFailed:
        return results
    judged = []
    for result in results:
        if result.verdict == "inconclusive" and result.level == "disable" and not result.tf32:
            name, original = result.name, found.original.outputs[0]
            accumulator = ErrorAccumulator(found.narrow_types.get(name, original[0][name].dtype), slack=found.slack)
            for reference, folded, other in zip(original, folded_run.outputs[0], perturbed, strict=True):
                a, b, c = (sample[name].astype(np.float64) for sample in (reference, folded, other))
                if a.shape == c.shape and np.isfinite([a, b, c]).all():
                    accumulator.add(b, c, a, None)
            if accumulator.error_ratio > K_PLAIN:
                result = replace(result, error_ratio=accumulator.error_ratio, verdict="fail", kind="constant")
        judged.append(result)
    return judged


def _specials(a: NDArray[Any], b: NDArray[Any], reference: NDArray[Any]) -> tuple[Judgement, str] | None:
    """Return what is wrong with the places of NaN and infinity, which must be the same; None if they are."""
    with np.errstate(invalid="ignore"):
        same = (np.isfinite(a) & np.isfinite(b)) | (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return None
    overflown = ~np.isfinite(a) & np.isfinite(b)
    if reference.shape == a.shape and (same | (overflown & np.isfinite(reference))).all():
        return "inconclusive", "overflows in the original only"
    return "fail", "has NaN or infinity in other places"


def _group(
    name: str, mode: RunMode, arrays: list[Compared], kind: str, found: Measured, tolerances: Tolerances
) -> OutputResult:
    limit = tolerances.of(kind, found.reference.fallback_reason is not None)
    if arrays[0].folded.dtype.kind != "f":
        return _flips(name, mode, arrays, kind)
    dtype = found.narrow_types.get(name, arrays[0].folded.dtype)
    accumulator = ErrorAccumulator(dtype, slack=found.slack)
    for compared in arrays:
        compared.add_to(accumulator)
    error_ratio, size = accumulator.error_ratio, accumulator.max_size
    verdict: Judgement = "fail" if not error_ratio <= limit else "pass"
    if verdict == "pass" and accumulator.too_noisy and accumulator.max_abs > 0:
        verdict = "inconclusive"
    return OutputResult(
        name,
        mode.level,
        error_ratio,
        accumulator.max_abs,
        accumulator.max_abs / size if size else 0.0,
        accumulator.detection_limit(limit),
        accumulator.max_abs / float(ulp(np.asarray(size, np.float64), dtype)),
        mode.tf32,
        kind,
        accumulator.channels(limit) if verdict == "fail" else [],
        verdict,
    )


def _flips(name: str, mode: RunMode, arrays: list[Compared], kind: str) -> OutputResult:
    """Judge integers and truth values by how many have changed, beside how many rounding alone changes."""
    changed = sum(int((c.original != c.folded).sum()) for c in arrays)
    total = sum(c.original.size for c in arrays)
    noise = sum(max(int((x != c.reference).sum()) for x in (c.original, c.correctly_rounded)) for c in arrays)
    verdict: Judgement = "pass" if changed <= 3 * noise else "inconclusive" if changed <= 3 * noise + FLIPS else "fail"
    share = changed / total if total else 0.0
    error_ratio = changed / noise if noise else float("inf") if changed else 0.0
    return OutputResult(
        name, mode.level, error_ratio, share, share, noise / total if total else 0.0, 0.0, mode.tf32, kind, [], verdict
    )


def _verdict(
    results: list[OutputResult], doubts: list[CheckResult], found: Measured, tolerances: Tolerances
) -> CheckResult:
    """Return the check's verdict over all outputs and modes."""
    if not any(np.isfinite(array).any() for sample in found.original.outputs[0] for array in _numbers(sample)):
        return CheckResult(
            "outputs", "inconclusive", "nothing was compared: the original's outputs hold no finite number"
        )
    if tolerances.rtol is not None or tolerances.atol is not None:
        return _by_tolerance(results, tolerances)
    worst = max(results, key=lambda r: r.error_ratio, default=None)
    figures: dict[str, Any] = {"error_ratio": worst.error_ratio if worst else None, "reference": "float64"}
    if found.reference.fallback_reason is not None:
        figures |= {"reference": "the original", "because": found.reference.fallback_reason}
    estimated = "" if found.reference.fallback_reason is None else "; rounding error estimated from the original alone"
    wrong = [r for r in results if r.verdict == "fail"]
    if wrong:
        worst = max(wrong, key=lambda r: r.error_ratio)
        limit = tolerances.of(worst.kind or "normal", found.reference.fallback_reason is not None)
        figures |= {"output": worst.name, "error_ratio": worst.error_ratio, "k": limit}
        detail = (
            f"{_how_many(wrong, results)}{worst.name!r}, error ratio {figure(worst.error_ratio)} (limit {limit:g}), "
        )
        detail += f"max abs {figure(worst.max_abs)}{estimated}"
        return CheckResult("outputs", "fail", detail, figures)
    if doubts:
        return replace(doubts[0], figures=figures)
    unsure = [r for r in results if r.verdict == "inconclusive"]
    if unsure:
        detail = f"{_how_many(unsure, results)}{unsure[0].name!r}, whose expected rounding error could hide a fault"
        return CheckResult("outputs", "inconclusive", detail, figures)
    assert worst is not None
    limit = tolerances.of(worst.kind or "normal", found.reference.fallback_reason is not None)
    detection_limit = max(r.detection_limit for r in results)
    figures |= {"k": limit, "detection_limit": detection_limit}
    if detection_limit > BLIND:
        detail = f"the expected rounding error is too large: detection limit {figure(detection_limit)}{estimated}"
        return CheckResult("outputs", "inconclusive", detail, figures)
    detail = f"error ratio {figure(worst.error_ratio)} (limit {limit:g}), "
    detail += f"detection limit {figure(detection_limit)}{estimated}"
    return CheckResult("outputs", "pass", detail, figures)


def _how_many(those: list[OutputResult], results: list[OutputResult]) -> str:
    """Return how many of several outputs it is, before the name of one."""
    names, every = {result.name for result in those}, {result.name for result in results}
    return "" if len(every) == 1 else f"{len(names)} of {len(every)} outputs; worst: "


def _numbers(sample: dict[str, NDArray[Any]]) -> Iterator[NDArray[Any]]:
    yield from (array if array.dtype.kind == "f" else np.zeros(1) for array in sample.values())


def _by_tolerance(results: list[OutputResult], tolerances: Tolerances) -> CheckResult:
    rtol, atol = tolerances.rtol or 0.0, tolerances.atol or 0.0
    bad = [r for r in results if r.verdict == "fail"]
    asked = f"tolerances on request: atol {atol:g}, rtol {rtol:g} of the largest value"
    worst = max(bad or results, key=lambda r: r.max_rel, default=None)
    detail = asked
    if worst is not None:
        where = f"{_how_many(bad, results)}{worst.name!r}, " if bad else ""
        detail = f"{where}max abs {figure(worst.max_abs)}, max rel {figure(worst.max_rel)} ({asked})"
    return CheckResult("outputs", "fail" if bad else "pass", detail, {"rtol": rtol, "atol": atol})


def _beyond(result: OutputResult, tolerances: Tolerances) -> bool:
    """Return True if an output differs by more than the tolerances that were asked for."""
    largest = result.max_abs / result.max_rel if result.max_rel else 0.0
    return result.max_abs > (tolerances.atol or 0.0) + (tolerances.rtol or 0.0) * largest
