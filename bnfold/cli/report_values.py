"""What an HTML report shows beside a result: the original's inspection, and weights before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnfold.errors import BnfoldError

if TYPE_CHECKING:
    from bnfold.report.report_data import ReportData, Weights
    from bnfold.results.benchmark import Benchmark
    from bnfold.results.folding import Folding, Inspection
    from bnfold.results.verification import Comparison


def of_folding(found: Folding) -> ReportData:
    """Collect what the page of a fold shows."""
    from bnfold.report import report_data

    model, output = found.inspection.model.path, None if found.output is None else found.output.path
    return report_data.of_folding(found, {} if output in (None, "-") else changed_weights(model, str(output)))


def of_comparison(found: Comparison) -> ReportData:
    """Collect what the page of a verification shows."""
    from bnfold.report import report_data

    original, folded = found.original.path, found.folded.path
    return report_data.of_comparison(found, _inspected(original), changed_weights(original, folded))


def of_benchmark(found: Benchmark) -> ReportData:
    """Collect what the page of a benchmark shows."""
    from bnfold.report import report_data

    original, folded = found.original.path, found.folded.path
    return report_data.of_benchmark(found, _inspected(original), changed_weights(original, folded))


def _inspected(path: str) -> Inspection | None:
    from bnfold.api import inspect

    try:
        return inspect(path)
    except BnfoldError:  # standard input, which is gone, or a model that needs --allow-unsafe-load
        return None


def changed_weights(original: str, folded: str) -> Weights:
    """Return the first tensors that a fold has changed, as many as a page shows; none where a model can't be read."""
    import numpy as np

    from bnfold.loading import load_any
    from bnfold.report.report_data import MOST_HISTOGRAMS

    try:
        before, after = load_any(original).weights(), load_any(folded).weights()
    except BnfoldError:
        return {}
    found: dict[str, tuple[Any, Any]] = {}
    for name in before:
        if name in after and len(found) < MOST_HISTOGRAMS:  # whatever is not shown need not be read
            old, new = before[name](), after[name]()
            if old.size > 1 and not np.array_equal(old, new):
                found[name] = old, new
    return found
