"""The layers check: each folded subgraph, original and folded side by side on one input, on the device itself."""

from __future__ import annotations

from bnfold.options import limit_of
from bnfold.results.verification import CheckResult, Judgement, LayerResult
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.measurement.measured import Measured
from bnfold.verification.measurement.subgraph_errors import SubgraphErrors
from bnfold.wording import counted, figure


def check_layers(found: Measured, cut: list[Subgraph], k: float | None) -> tuple[CheckResult, list[LayerResult]]:
    """Judge each subgraph that was run by its error ratio, and name the channels that are off by themselves.

    ``k`` replaces the limit of the ratio.
    """
    limit = limit_of(found.fed.kinds[0], k)
    layers, skipped = [], []
    for subgraph in cut:
        errors = found.subgraphs.errors.get(subgraph.name, SubgraphErrors(skipped="it was not run"))
        if errors.skipped is not None:
            skipped.append(f"{subgraph.name}: {errors.skipped}")
        elif errors.failed is not None and not subgraph.sure:
            skipped.append(f"{subgraph.name}: {errors.failed}")
        elif errors.failed is not None:
            name = f"{subgraph.name}: {errors.failed}"
            layers.append(LayerResult(name, None, None, None, [], "layers", "fail", subgraph.node))
        else:
            layers.append(_judged(subgraph, errors, limit))
    wrong = [layer for layer in layers if layer.verdict == "fail"]
    numbers = {"subgraphs": len(cut), "skipped": len(skipped), "k": limit}
    if wrong:
        worst = max(wrong, key=lambda layer: float("inf") if layer.error_ratio is None else layer.error_ratio)
        by = "" if worst.error_ratio is None else f", {_ratio(worst.error_ratio, limit)}"
        where = f", {counted(len(worst.channels), 'channel')}" if worst.channels else ""
        detail = f"{len(wrong)} of {counted(len(cut), 'layer')}; worst: {worst.title}{by}{where}"
        return CheckResult("layers", "fail", detail, numbers), layers
    if found.subgraphs.failure is not None:
        detail = f"the layers can't be run: {found.subgraphs.failure}"
        return CheckResult("layers", "inconclusive", detail, numbers), layers
    doubts = skipped + [_doubt(layer, limit) for layer in layers if layer.verdict == "inconclusive"]
    if doubts:
        detail = f"{len(doubts)} of {counted(len(cut), 'layer')} not judged; first: {doubts[0]}"
        return CheckResult("layers", "inconclusive", detail, numbers), layers
    if not cut:
        return CheckResult("layers", "pass", "all layers are the original's", numbers), layers
    worst = max(layers, key=lambda layer: layer.error_ratio or 0.0)
    numbers["error_ratio"] = worst.error_ratio or 0.0
    detail = f"{counted(len(layers), 'layer')}, {_ratio(worst.error_ratio or 0.0, limit)}"
    return CheckResult("layers", "pass", detail, numbers), layers


def _judged(subgraph: Subgraph, errors: SubgraphErrors, limit: float) -> LayerResult:
    verdict: Judgement = "inconclusive" if errors.noisy else "pass"
    if not errors.error_ratio <= limit:
        verdict = "fail" if subgraph.sure else "inconclusive"
    channels = errors.channels if verdict == "fail" else []
    name, node = subgraph.name, subgraph.node
    return LayerResult(name, errors.error_ratio, errors.max_abs, None, channels, "layers", verdict, node)


def _doubt(layer: LayerResult, limit: float) -> str:
    """Return why a layer that ran proves nothing."""
    if layer.error_ratio is not None and not layer.error_ratio <= limit:
        return f"{layer.title}, {_ratio(layer.error_ratio, limit)}, paired by its name alone"
    return f"{layer.title}, whose expected rounding error could hide a fault"


def _ratio(error_ratio: float, limit: float) -> str:
    return f"error ratio {figure(error_ratio)} (limit {limit:g})"
