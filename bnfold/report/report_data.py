"""What an HTML report shows: a result, and beside it the values that the result does not hold.

Those are given by the caller, which can read models; nothing here reads a file's contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bnfold.results.benchmark import HINT, Benchmark, Level
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

    ``headline`` stands beside the title and the verdict. ``sizes`` are rows of (what, before, after), ``latencies``
    rows of (level, original, folded, ratio, outcome). ``of_original``: the inspection is that of a model that bnfold
    was given beside a folded one, and says nothing about that.
    """

    title: str
    headline: str
    inspection: Inspection | None = None
    comparison: Comparison | None = None
    benchmark: Benchmark | None = None
    sizes: list[tuple[str, str, str]] = field(default_factory=list)
    latencies: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)
    of_original: bool = False

    @property
    def drifts(self) -> dict[str, Drift]:
        """How far data were from the statistics of each BatchNorm, where that was measured."""
        rows = [] if self.inspection is None else self.inspection.rows
        return {row.name: row.drift for row in rows if row.drift is not None}


def of_inspection(found: Inspection) -> ReportData:
    """Return what the page of a model alone shows."""
    return ReportData(found.model.path, _count(found, "can be folded"), found)


def of_folding(found: Folding, weights: Weights) -> ReportData:
    """Return what the page of a fold shows."""
    headline = _count(found.inspection, "folded" if found.output is not None else "can be folded")
    compared = as_comparison(found)
    sizes = _counts(found.nodes, found.bytes)
    return ReportData(found.inspection.model.path, headline, found.inspection, compared, sizes=sizes, weights=weights)


def of_comparison(found: Comparison, inspection: Inspection | None, weights: Weights) -> ReportData:
    """Return what the page of a verification shows; ``inspection`` is that of the original."""
    before, after = (
        f"{Path(path).stat().st_size:,}" if Path(path).is_file() else ""
        for path in (found.original.path, found.folded.path)
    )
    headline = f"compared with {found.original.path}"
    sizes = [("bytes", before, after)]
    return ReportData(found.folded.path, headline, inspection, found, sizes=sizes, weights=weights, of_original=True)


def of_benchmark(found: Benchmark, inspection: Inspection | None, weights: Weights) -> ReportData:
    """Return what the page of a benchmark shows; ``inspection`` is that of the original."""
    return ReportData(
        found.folded.path,
        f"compared with {found.original.path}",
        inspection,
        benchmark=found,
        sizes=_counts(found.nodes, found.bytes),
        latencies=list(map(_latency, found.levels)),
        weights=weights,
        of_original=True,
    )


def _latency(level: Level) -> tuple[str, str, str, str, str]:
    before, after = (f"{timing.median:.3g} ± {timing.spread:.2g} ms" for timing in (level.original, level.folded))
    outcome = f"{level.conclusion}: {HINT}" if level.verdict == "inconclusive" else level.conclusion
    return level.level, before, after, f"{level.ratio:.3g} ({level.low:.3g} to {level.high:.3g})", outcome


def _count(found: Inspection, verb: str) -> str:
    total = len(found.batch_norms)
    return f"{found.foldable} of {total} BatchNorm{'s' if total > 1 else ''} {verb}" if total else "no BatchNorms"


def _counts(nodes: dict[str, int], size: dict[str, int]) -> list[tuple[str, str, str]]:
    """Return the rows of nodes and bytes, before and after: in the order of their entries."""
    (few, many), (small, large) = nodes.values(), size.values()
    return [("nodes", f"{few:,}", f"{many:,}"), ("bytes", f"{small:,}", f"{large:,}")]
