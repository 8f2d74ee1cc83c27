"""The page's plots, as SVG to be put into it. Texts stay texts, colours of axes are the page's own."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bnfold.report import benchmark_plot, drift_plot, figures
from bnfold.report.report_data import ReportData
from bnfold.results.verification import Verification

MOST_ROWS = 40
"""Rows of the errors' plot: the largest ones."""

LEAST, LARGEST_RATIO = 1e-3, 1e9
"""Error ratios beyond are triangles on the edge of their plot, with the ratio beside them."""

LARGEST = 1e150
"""Beyond it, squares and widths of bins are infinite."""

MOST_ENTRIES = 2**20
"""Entries of a weight that a histogram counts."""


def all_of(data: ReportData) -> dict[str, Any]:
    """Return every plot that there is data for, by name."""
    import matplotlib
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    found: dict[str, Any] = {}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bnfold", "font.size": 9}):
        ratios = [] if data.comparison is None else _ratios(data.comparison.verification)
        if ratios:
            found["errors"] = _svg(_errors(ratios[:MOST_ROWS]))
            found["errors_cut"] = max(0, len(ratios) - MOST_ROWS)
        if data.weights:
            found["weights"] = [(name, _svg(_histogram(*pair))) for name, pair in data.weights.items()]
        if data.drifts:
            found["drift"] = _svg(drift_plot.draw(data.drifts))
        if data.benchmark is not None:
            found["latency"] = _svg(benchmark_plot.draw(data.benchmark))
    return found


Ratio = tuple[str, float, str, float | None]
"""A name, its error ratio, its verdict, and the limit."""


def _ratios(verification: Verification) -> list[Ratio]:
    """Return what has an error ratio, the largest first."""
    limits = {check.check: check.figures.get("k") for check in verification.checks}
    found: list[Ratio] = [
        (layer.name, layer.error_ratio, layer.verdict, limits.get("layers"))
        for layer in verification.layers
        if layer.error_ratio is not None
    ]
    found += [
        (f"output {output.name}, level {output.level}", output.error_ratio, output.verdict, limits.get("outputs"))
        for output in verification.outputs
    ]
    return sorted(found, key=lambda row: -row[1] if row[1] == row[1] else -np.inf)


def _errors(ratios: Sequence[Ratio]) -> Any:
    """Draw each error as a multiple of the expected rounding error, and its limit; the axis is as wide as both."""
    values = np.array([ratio for _, ratio, *_ in ratios], dtype=np.float64)
    limits = sorted({limit for *_, limit in ratios if limit})
    figure, axis = figures.rows([name for name, *_ in ratios])
    figures.log_axis(axis, [1.0, *limits, *values], LEAST, LARGEST_RATIO)
    for row, (_, ratio, verdict, limit) in enumerate(ratios):
        figures.mark(axis, 1.0, row, figures.GREY, "expected rounding error")
        if limit:
            figures.mark(axis, limit, row, figures.RED, "limit")
        colour = figures.RED if verdict == "fail" else figures.BLUE
        if figures.scatter(axis, [ratio], [row], s=26, zorder=3, color=colour):
            side, place, shift = ("left", 0.0, 10) if ratio < 1 else ("right", 1.0, -10)
            style = {"size": 8, "ha": side, "va": "center"}
            axis.annotate(f"{ratio:.3g}", (place, row), (shift, 0), ("axes fraction", "data"), "offset points", **style)
    figures.legend(axis)
    axis.set_xlabel("error ratio: error / expected rounding error", fontsize=8)
    return figure


def _histogram(before: NDArray[Any], after: NDArray[Any]) -> Any:
    """Draw the entries of a changed weight, before and after."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(2.1, 1.3), layout="constrained")
    old, new = _entries(before), _entries(after)
    edges = np.histogram_bin_edges(np.concatenate([old, new]), 50).tolist()
    axis.hist(old, edges, histtype="stepfilled", color=figures.GREY, alpha=0.35)
    axis.hist(old, edges, histtype="step", color=figures.GREY)
    axis.hist(new, edges, histtype="stepfilled", color=figures.BLUE, alpha=0.5)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=4)
    axis.spines[["left", "top", "right"]].set_visible(False)
    return figure


def _entries(part: NDArray[Any]) -> NDArray[Any]:
    flat = np.asarray(part).reshape(-1)
    flat = flat[:: -(-flat.size // MOST_ENTRIES)] if flat.size > MOST_ENTRIES else flat
    wide = flat.astype(np.float64)
    return wide[np.abs(wide) < LARGEST]


def _svg(figure: Any) -> Any:
    """Return the figure as an element of a page, without what a page has no use for: names of parts, metadata."""
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = re.sub("<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return Markup(re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text))
