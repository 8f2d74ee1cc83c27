"""The page's plots, as SVG to be put into it. Texts stay texts, colours of axes are the page's own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bnfold.report import benchmark_plot, drift_plot
from bnfold.report.figures import label
from bnfold.report.report_data import ReportData

BEFORE, AFTER, LIMIT = "#8a8a8a", "#4a90d9", "#d62728"

MOST_LAYERS = 60
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
        layers = [] if data.comparison is None else data.comparison.verification.layers
        ratios = [(layer.name, layer.error_ratio, layer.verdict) for layer in layers if layer.error_ratio is not None]
        if ratios:
            checks = data.comparison.verification.checks if data.comparison else []
            limit = next((check.figures.get("k") for check in checks if check.check == "layers"), None)
            found["layers"] = _svg(_errors(pyplot, ratios[:MOST_LAYERS], limit))
        if data.weights:
            found["weights"] = _svg(_histograms(pyplot, data.weights))
        if data.drifts:
            found["drift"] = _svg(drift_plot.draw(data.drifts))
        if data.benchmark is not None:
            found["latency"] = _svg(benchmark_plot.draw(data.benchmark))
    return found


def _errors(pyplot: Any, ratios: Sequence[tuple[str, float, str]], limit: float | None) -> Any:
    """Draw the error of each folded layer as a multiple of the expected rounding error."""
    figure, axis = pyplot.subplots(figsize=(7.5, 0.9 + 0.22 * len(ratios)), layout="constrained")
    values = np.clip([ratio for _, ratio, _ in ratios], 1e-2, 1e6)
    colours = [LIMIT if verdict == "fail" else AFTER for *_, verdict in ratios]
    axis.scatter(values, range(len(ratios)), c=colours, s=18)
    axis.axvline(1.0, color=BEFORE, linewidth=1)
    if limit:
        axis.axvline(limit, color=LIMIT, linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(0.1, max(20.0, float(values.max()) * 2))
    axis.set_yticks(range(len(ratios)), [label(name) for name, *_ in ratios])
    axis.set_ylim(len(ratios) - 0.4, -0.6)
    axis.set_xlabel("error ratio (grey: the rounding-error baseline; red: the limit)")
    return figure


def _histograms(pyplot: Any, weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> Any:
    """Draw the entries of each changed weight, before and after."""
    columns = min(3, len(weights))
    rows = -(-len(weights) // columns)
    size = (2.5 * columns + 0.5, 1.7 * rows + 0.3)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(weights) :]:
        axis.set_visible(False)
    for axis, (name, pair) in zip(axes.flat, weights.items(), strict=False):
        before, after = (_entries(part) for part in pair)
        edges = np.histogram_bin_edges(np.concatenate([before, after]), 60)
        axis.hist(before, edges, histtype="step", color=BEFORE, label="before")
        axis.hist(after, edges, histtype="stepfilled", color=AFTER, alpha=0.5, label="after")
        axis.set_title(label(name), fontsize=8)
        axis.set_yticks([])
    axes.flat[0].legend(fontsize=7, frameon=False)
    return figure


def _entries(part: NDArray[Any]) -> NDArray[Any]:
    flat = np.asarray(part).reshape(-1)
    flat = flat[:: -(-flat.size // MOST_ENTRIES)] if flat.size > MOST_ENTRIES else flat
    wide = flat.astype(np.float64)
    return wide[np.abs(wide) < LARGEST]


def _svg(figure: Any) -> Any:
    """Return the figure as an element of a page."""
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
