"""What an HTML report shows: a result, and beside it the values that the result does not hold.

Those are given by the caller, which can read models; nothing here reads a file's contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bnfold.results.benchmark import HINT, Benchmark
from bnfold.results.drift import Drift
from bnfold.results.folding import Folding, Inspection, as_comparison
from bnfold.results.verification import Comparison

MOST_HISTOGRAMS = 12
"""Weights that are drawn before and after."""

Weights = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
"""The tensors that a fold changed, before and after, by the layer's name."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a page can show; what is missing leaves no trace on it.

    ``sizes`` are rows of (what, before, after).
    """

    title: str
    inspection: Inspection | None = None
    comparison: Comparison | None = None
    benchmark: Benchmark | None = None
    sizes: list[tuple[str, str, str]] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)

    @property
    def drifts(self) -> dict[str, Drift]:
        """How far data were from the statistics of each BatchNorm, where that was measured."""
        rows = [] if self.inspection is None else self.inspection.rows
        return {row.name: row.drift for row in rows if row.drift is not None}


def of_inspection(found: Inspection) -> ReportData:
    """Return what the page of a model alone shows."""
    return ReportData(found.model.path, found)


def of_folding(found: Folding, weights: Weights) -> ReportData:
    """Return what the page of a fold shows."""
    sizes = _counts(found.nodes, found.bytes)
    return ReportData(found.inspection.model.path, found.inspection, as_comparison(found), sizes=sizes, weights=weights)


def of_comparison(found: Comparison, inspection: Inspection | None, weights: Weights) -> ReportData:
    """Return what the page of a verification shows; ``inspection`` is that of the original."""
    before, after = (
        f"{Path(path).stat().st_size:,}" if Path(path).is_file() else ""
        for path in (found.original.path, found.folded.path)
    )
    sizes = [("bytes of the file", before, after)]
    return ReportData(found.folded.path, inspection, found, sizes=sizes, weights=weights)


def of_benchmark(found: Benchmark, inspection: Inspection | None, weights: Weights) -> ReportData:
    """Return what the page of a benchmark shows; ``inspection`` is that of the original."""
    sizes = _counts(found.nodes, found.bytes)
    for level in found.levels:
        before, after = (f"{t.median:.3f} ± {t.spread:.3f} ms" for t in (level.original, level.folded))
        sizes.append((f"latency, level {level.level}", before, after))
        ratio = f"{level.ratio:.3f} ({level.low:.3f} to {level.high:.3f}), {level.verdict}"
        hint = f": {HINT}" if level.verdict == "inconclusive" else ""
        sizes.append((f"folded / original, level {level.level}", "1", ratio + hint))
    return ReportData(found.folded.path, inspection, benchmark=found, sizes=sizes, weights=weights)


def _counts(nodes: dict[str, int], size: dict[str, int]) -> list[tuple[str, str, str]]:
    """Return the rows of nodes and bytes, before and after: in the order of their entries."""
    (few, many), (small, large) = nodes.values(), size.values()
    return [("nodes", f"{few:,}", f"{many:,}"), ("bytes", f"{small:,}", f"{large:,}")]
