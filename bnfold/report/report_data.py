"""What an HTML report tells beside the result that it is about: plans, sizes, weights before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.report.page.render import MOST_HISTOGRAMS, ReportData
from bnfold.results.folding import Comparison, Folding, Inspection, as_comparison

if TYPE_CHECKING:
    from bnfold.benchmark.run import Benchmark


def of_inspection(found: Inspection) -> ReportData:
    """A model alone."""
    return ReportData(found.model.path, found)


def of_folding(found: Folding) -> ReportData:
    """A fold that was done."""
    sizes = _counted(found.nodes, found.bytes)
    model, output = found.inspection.model.path, None if found.output is None else found.output.path
    weights = {} if output in (None, "-") else _weights(model, str(output))
    return ReportData(model, found.inspection, as_comparison(found), sizes=sizes, weights=weights)


def of_comparison(found: Comparison) -> ReportData:
    """A verification: the original is inspected for it."""
    sizes = _sizes(found.original.path, found.folded.path)
    weights = _weights(found.original.path, found.folded.path)
    return ReportData(found.folded.path, _inspected(found.original.path), found, sizes=sizes, weights=weights)


def of_benchmark(found: Benchmark) -> ReportData:
    """A benchmark: sizes and latencies."""
    from bnfold.benchmark.run import HINT

    sizes = _counted(found.nodes, found.bytes)
    for level in found.levels:
        before, after = (f"{t.median:.3f} ± {t.spread:.3f} ms" for t in (level.original, level.folded))
        sizes.append((f"latency, level {level.level}", before, after))
        told = f"{level.ratio:.3f} ({level.low:.3f} to {level.high:.3f}), {level.verdict}"
        hint = f": {HINT}" if level.verdict == "inconclusive" else ""
        sizes.append((f"folded / original, level {level.level}", "1", told + hint))
    original, folded = found.original.path, found.folded.path
    return ReportData(folded, _inspected(original), benchmark=found, sizes=sizes, weights=_weights(original, folded))


def _counted(nodes: dict[str, int], size: dict[str, int]) -> list[tuple[str, str, str]]:
    """Nodes and bytes, before and after: in the order of their entries."""
    (few, many), (small, large) = nodes.values(), size.values()
    return [("nodes", f"{few:,}", f"{many:,}"), ("bytes", f"{small:,}", f"{large:,}")]


def _inspected(path: str) -> Inspection | None:
    from bnfold.api import inspect
    from bnfold.errors import BnfoldError

    try:
        return inspect(path)
    except BnfoldError:  # standard input, which is gone, or a model that needs --allow-unsafe-load
        return None


def _sizes(original: str, folded: str) -> list[tuple[str, str, str]]:
    before, after = (f"{Path(path).stat().st_size:,}" if Path(path).is_file() else "" for path in (original, folded))
    return [("bytes of the file", before, after)]


def _weights(original: str, folded: str) -> dict[str, Any]:
    """The first tensors that a fold has changed, by the layer's name, as many as a page shows."""
    import numpy as np

    from bnfold.errors import BnfoldError

    try:
        before, after = _tensors(original), _tensors(folded)
    except BnfoldError:
        return {}
    found: dict[str, Any] = {}
    for name in before:
        if name in after and len(found) < MOST_HISTOGRAMS:  # whatever is not shown need not be read
            old, new = before[name](), after[name]()
            if old.size > 1 and not np.array_equal(old, new):
                found[name] = old, new
    return found


def _tensors(path: str) -> dict[str, Any]:
    """The weights of linear layers, each as a call that reads it."""
    from bnfold.loading import load_any

    return load_any(path).weights()
