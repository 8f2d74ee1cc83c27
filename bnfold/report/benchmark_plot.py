"""The times of a benchmark as a picture: one panel per optimisation level, every run a dot behind its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnfold.results.benchmark import Benchmark

COLOURS = ("#888888", "#4a90d9")


def draw(benchmark: Benchmark) -> Any:
    """Draw the figure."""
    from matplotlib import pyplot

    count = len(benchmark.levels)
    figure, axes = pyplot.subplots(1, count, figsize=(1 + 2.4 * count, 3.6), squeeze=False, layout="constrained")
    for axis, level in zip(axes[0], benchmark.levels, strict=True):
        _panel(axis, level)
    axes[0][0].set_ylabel("milliseconds per run")
    figure.suptitle(f"{Path(benchmark.folded.path).name} on {benchmark.device}")
    return figure


def _panel(axis: Any, level: Any) -> None:
    series = [level.original.milliseconds, level.folded.milliseconds]
    axis.boxplot(series, widths=0.5, showfliers=False, medianprops={"color": "black"})
    axis.set_xticks([1, 2], ["original", "folded"])
    for place, (values, colour) in enumerate(zip(series, COLOURS, strict=True), start=1):
        spread = [place + 0.18 * ((index * 0.618) % 1 - 0.5) for index in range(len(values))]
        axis.scatter(spread, values, s=6, color=colour, alpha=0.6)
    axis.set_title(f"{level.level}: {level.ratio:.2f}x ({level.low:.2f} to {level.high:.2f})", fontsize=9)
    axis.set_ylim(bottom=0)
