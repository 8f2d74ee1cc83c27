"""The layers gate: each piece that was folded, original and folded side by side on one input, on the device itself."""

from __future__ import annotations

from bnfold.results.verification import GateResult, Judgement, LayerResult
from bnfold.verification.equivalence.subgraphs import Piece
from bnfold.verification.error_model import limit_of
from bnfold.verification.runtime.measure import Measured


def check_layers(found: Measured, cut: list[Piece], k: float | None) -> tuple[GateResult, list[LayerResult]]:
    """Judge each piece that was run: its ratio, the channels that are off by themselves."""
    limit = limit_of(found.kinds[0], k)
    layers, skipped = [], []
    for piece in cut:
        figures = found.pieces.get(piece.name, {"skipped": "it was not reached"})
        if "skipped" in figures:
            skipped.append(f"{piece.name}: {figures['skipped']}")
        elif "failed" in figures and not piece.sure:
            skipped.append(f"{piece.name}: {figures['failed']}")
        elif "failed" in figures:
            name = f"{piece.name}: {figures['failed']}"
            layers.append(LayerResult(name, None, None, None, [], "layers", "fail", piece.node))
        else:
            layers.append(_judged(piece, figures, limit))
    wrong = [layer for layer in layers if layer.verdict == "fail"]
    numbers = {"pieces": len(cut), "skipped": len(skipped), "k": limit}
    if wrong:
        worst = max(wrong, key=lambda layer: float("inf") if layer.ratio is None else layer.ratio)
        by = (
            "" if worst.ratio is None else f" is off by {worst.ratio:.3g} times the unavoidable error (limit {limit:g})"
        )
        where = f", in channels {_some(worst.channels)}" if worst.channels else ""
        return GateResult("layers", "fail", f"{worst.name}{by}{where}", numbers), layers
    if found.pieces_failed is not None:
        return GateResult("layers", "undecided", f"they can't be run: {found.pieces_failed}", numbers), layers
    noisy = [layer for layer in layers if layer.verdict == "undecided"]
    if skipped or noisy:
        detail = skipped[0] if skipped else f"{noisy[0].name}: too noisy, or paired by its name alone"
        rest = f" ({len(skipped) + len(noisy)} of {len(cut)} pieces)"
        return GateResult("layers", "undecided", detail + rest, numbers), layers
    if not cut:
        return GateResult("layers", "pass", "no piece differs", numbers), layers
    worst = max(layers, key=lambda layer: layer.ratio or 0.0)
    numbers["ratio"] = worst.ratio or 0.0
    pieces = f"{len(layers)} piece{'' if len(layers) == 1 else 's'}"
    detail = f"{pieces}, at most {worst.ratio:.3g} times the unavoidable error (limit {limit:g})"
    return GateResult("layers", "pass", detail, numbers), layers


def _judged(piece: Piece, figures: dict[str, object], limit: float) -> LayerResult:
    ratio, channels = float(str(figures["ratio"])), figures["channels"]
    assert isinstance(channels, list)
    verdict: Judgement = "undecided" if figures["noisy"] else "pass"
    if not ratio <= limit:
        verdict = "fail" if piece.sure else "undecided"
    largest = float(str(figures["max_abs"]))
    shown = channels if verdict == "fail" else []
    return LayerResult(piece.name, ratio, largest, None, shown, "layers", verdict, piece.node)


def _some(channels: list[int]) -> str:
    return ", ".join(map(str, channels[:5])) + (" …" if len(channels) > 5 else "")
