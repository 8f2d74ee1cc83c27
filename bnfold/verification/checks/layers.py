"""The layers check: each piece that was folded, original and folded side by side on one input, on the device itself."""

from __future__ import annotations

from bnfold.options import limit_of
from bnfold.results.verification import CheckResult, Judgement, LayerResult
from bnfold.verification.equivalence.subgraphs import Subgraph
from bnfold.verification.runtime.measure import Measured


def check_layers(found: Measured, cut: list[Subgraph], k: float | None) -> tuple[CheckResult, list[LayerResult]]:
    """Judge each piece that was run: its ratio, the channels that are off by themselves."""
    limit = limit_of(found.kinds[0], k)
    layers, skipped = [], []
    for subgraph in cut:
        figures = found.subgraphs.get(subgraph.name, {"skipped": "it was not reached"})
        if "skipped" in figures:
            skipped.append(f"{subgraph.name}: {figures['skipped']}")
        elif "failed" in figures and not subgraph.sure:
            skipped.append(f"{subgraph.name}: {figures['failed']}")
        elif "failed" in figures:
            name = f"{subgraph.name}: {figures['failed']}"
            layers.append(LayerResult(name, None, None, None, [], "layers", "fail", subgraph.node))
        else:
            layers.append(_judged(subgraph, figures, limit))
    wrong = [layer for layer in layers if layer.verdict == "fail"]
    numbers = {"pieces": len(cut), "skipped": len(skipped), "k": limit}
    if wrong:
        worst = max(wrong, key=lambda layer: float("inf") if layer.error_ratio is None else layer.error_ratio)
        by = (
            ""
            if worst.error_ratio is None
            else f" is off by {worst.error_ratio:.3g} times the unavoidable error (limit {limit:g})"
        )
        where = f", in channels {_some(worst.channels)}" if worst.channels else ""
        return CheckResult("layers", "fail", f"{worst.name}{by}{where}", numbers), layers
    if found.subgraphs_failed is not None:
        return CheckResult("layers", "inconclusive", f"they can't be run: {found.subgraphs_failed}", numbers), layers
    noisy = [layer for layer in layers if layer.verdict == "inconclusive"]
    if skipped or noisy:
        detail = skipped[0] if skipped else f"{noisy[0].name}: too noisy, or paired by its name alone"
        rest = f" ({len(skipped) + len(noisy)} of {len(cut)} pieces)"
        return CheckResult("layers", "inconclusive", detail + rest, numbers), layers
    if not cut:
        return CheckResult("layers", "pass", "no piece differs", numbers), layers
    worst = max(layers, key=lambda layer: layer.error_ratio or 0.0)
    numbers["ratio"] = worst.error_ratio or 0.0
    subgraphs = f"{len(layers)} piece{'' if len(layers) == 1 else 's'}"
    detail = f"{subgraphs}, at most {worst.error_ratio:.3g} times the unavoidable error (limit {limit:g})"
    return CheckResult("layers", "pass", detail, numbers), layers


def _judged(subgraph: Subgraph, figures: dict[str, object], limit: float) -> LayerResult:
    error_ratio, channels = float(str(figures["ratio"])), figures["channels"]
    assert isinstance(channels, list)
    verdict: Judgement = "inconclusive" if figures["noisy"] else "pass"
    if not error_ratio <= limit:
        verdict = "fail" if subgraph.sure else "inconclusive"
    largest = float(str(figures["max_abs"]))
    shown = channels if verdict == "fail" else []
    return LayerResult(subgraph.name, error_ratio, largest, None, shown, "layers", verdict, subgraph.node)


def _some(channels: list[int]) -> str:
    return ", ".join(map(str, channels[:5])) + (" …" if len(channels) > 5 else "")
