"""The weights check: recompute every folded tensor in float64 from the original and compare in ulps.

It proves the folded layers for all inputs, dead channels and errors below the rounding error included, which no
sampling can.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import numpy as np

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.numerics.batchnorm import ONNX_EPSILON
from bnfold.results.verification import CheckResult, Judgement, LayerResult
from bnfold.verification.equivalence.findings import Alignment, layers_before
from bnfold.wording import counted, figure

OTHERS = 4.0
"""Ulps that a folded weight may be off: what a fold costs that is computed in the storage type."""

EXACT = 0.5 + 1e-6
"""Ulps that a single rounding may cost."""


def check_weights(
    found: Alignment | str, tolerance: float | None = None, *, refolded: bool = False
) -> tuple[CheckResult, list[LayerResult]]:
    """Judge every folded layer against the exact fold; ``found`` says why if the models can't be aligned.

    ``tolerance`` is in ulps, 4 by default. ``refolded``: the model is what bnfold makes of the original; no other tool
    folds into the parameters of a BatchNormalization.
    """
    tolerance = OTHERS if tolerance is None else tolerance
    if isinstance(found, str):
        return CheckResult("weights", "inconclusive", found), []
    layers = by_alignment(found, tolerance)
    layers += wrong_numbers(found, layers) + ([] if refolded else _moved_statistics(found))
    missing = [mismatch.name for mismatch in found.mismatches if mismatch.kind != "numbers"]
    return judge_tensors(layers, missing, tolerance), layers


def judge_tensors(layers: list[LayerResult], missing: list[str], tolerance: float) -> CheckResult:
    """Return the check's verdict from those of all tensors; ``missing`` names nodes without a counterpart."""
    ulps = [layer.max_ulp for layer in layers if layer.max_ulp is not None]
    figures = {"layers": len(layers), "max_ulp": max(ulps, default=0.0), "tolerance": tolerance}
    wrong = [layer for layer in layers if layer.verdict == "fail"]
    if wrong:
        worst = max(wrong, key=lambda layer: np.inf if layer.max_ulp is None else layer.max_ulp)
        by = "" if worst.max_ulp is None else f", {figure(worst.max_ulp)} ulp"
        channels = f", {counted(len(worst.channels), 'channel')}" if worst.channels else ""
        detail = f"{len(wrong)} of {counted(len(layers), 'layer')}; worst: {worst.title}{by}{channels}"
        return CheckResult("weights", "fail", detail, figures)
    if missing:
        detail = f"{counted(len(missing), 'node')} without a counterpart in the original; first: {missing[0]}"
        return CheckResult("weights", "inconclusive", detail, figures)
    if not layers:
        return CheckResult("weights", "pass", "all weights are the original's", figures)
    detail = f"{counted(len(layers), 'layer')}, max error {figure(figures['max_ulp'])} ulp"
    return CheckResult("weights", "pass", detail, figures)


def by_alignment(found: Alignment, tolerance: float) -> list[LayerResult]:
    """Return the result of each folded layer of the alignment; ``tolerance`` is in ulps."""
    results = []
    for tensor in found.tensors:
        worst = float(tensor.ulps.max(initial=0.0))
        if worst == 0:
            continue
        allowed = 0.0 if tensor.plain else tolerance
        channels = [int(channel) for channel in np.flatnonzero(tensor.ulps > allowed)]
        largest = float(tensor.differences[np.isfinite(tensor.differences)].max(initial=0.0))
        verdict: Judgement = "pass" if worst <= allowed else "fail"
        name = f"{tensor.node.op} {tensor.node.name!r}"
        node = tensor.node.name
        part: Literal["weights", "bias"] = "bias" if tensor.in_bias else "weights"
        results.append(LayerResult(name, None, largest, worst, channels, "weights", verdict, node, part))
    return results


def wrong_numbers(found: Alignment, known: list[LayerResult]) -> list[LayerResult]:
    """Return a result, for the layer before it, for each wrong number where no tensor was measured."""
    failing = {layer.node for layer in known if layer.verdict == "fail"}
    results = []
    for mismatch in found.mismatches:
        if mismatch.kind != "numbers":
            continue
        before = {node.name: node for node in layers_before(mismatch.node)}
        if not failing & before.keys():
            node = next(iter(before.values()), mismatch.node)
            name = f"{node.label} (found at {mismatch.name})"
            results.append(LayerResult(name, None, None, None, mismatch.channels, "weights", "fail", node.name))
    if not found.mismatches:
        for output, channels in found.wrong_outputs.items():
            if channels is not None and not failing:
                results.append(LayerResult(f"output {output!r}", None, None, None, channels, "weights", "fail"))
    return results


def _moved_statistics(found: Alignment) -> list[LayerResult]:
    """Return a result for each kept BatchNorm with other parameters: no tool but bnfold folds into them."""

    def parameters(node: Node) -> Hashable:
        held = (value for value in node.inputs[1:5] if value is not None)
        return np.float32(node.attr("epsilon", ONNX_EPSILON)), tuple(map(_numbers, held))

    known = {
        parameters(node)
        for scope in found.original.graphs.scopes
        for node in scope.nodes
        if node.op == "BatchNormalization"
    }
    return [
        LayerResult(f"BatchNormalization {node.name!r}", None, None, None, [], "weights", "fail", node.name)
        for scope in found.folded.graphs.scopes
        for node in scope.nodes
        if node.op == "BatchNormalization" and parameters(node) not in known
    ]


def _numbers(value: Value) -> bytes | None:
    """Return what a constant holds, in whatever type; None for a value that is computed."""
    constants = value.graph.constants
    if not constants.is_constant(value):
        return None
    try:
        return constants.evaluate(value).astype(np.float64).tobytes()
    except NotEvaluable:
        return None
