"""The times of a benchmark as a picture: one panel per optimisation level, every run a dot behind its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bnfold.report import figures
from bnfold.results.benchmark import Benchmark, Level

COLOURS = (figures.GREY, figures.BLUE)

MARGIN = 0.6
"""Space on both sides of the boxes, as a part of what they and their whiskers span."""


def draw(benchmark: Benchmark) -> Any:
    """Draw the figure."""
    from matplotlib import pyplot

    count = len(benchmark.levels)
    figure, axes = pyplot.subplots(
        count, 1, figsize=(figures.WIDTH, 0.5 + 1.6 * count), squeeze=False, layout="constrained"
    )
    for axis, level in zip(axes[:, 0], benchmark.levels, strict=True):
        _panel(axis, level)
    name = figures.label(Path(benchmark.folded.path).name)
    figure.suptitle(f"{name} on {benchmark.device}", fontsize=10, x=0.01, ha="left")
    return figure


def _panel(axis: Any, level: Level) -> None:
    """Draw one level; the axis is as long as the whiskers and their surroundings, whatever outliers there are."""
    from matplotlib.cbook import boxplot_stats
    from matplotlib.patches import Rectangle

    series = [level.original.milliseconds, level.folded.milliseconds]
    boxes = boxplot_stats(series)
    low, high = min(box["whislo"] for box in boxes), max(box["whishi"] for box in boxes)
    space = MARGIN * (high - low) or 0.05 * high
    for place, box in enumerate(boxes):
        first, last = box["q1"], box["q3"]
        for ends in ((box["whislo"], first), (last, box["whishi"])):
            axis.plot(ends, [place, place], color="black", linewidth=1)
        axis.plot([box["med"]] * 2, [place - 0.25, place + 0.25], color="black", linewidth=2)
        axis.add_patch(Rectangle((first, place - 0.25), last - first, 0.5, fill=False, edgecolor="black", linewidth=1))
    axis.set_xlim(max(0.0, low - space), high + space)
    beyond = 0
    for place, (values, colour) in enumerate(zip(series, COLOURS, strict=True)):
        spread = place + 0.36 * ((np.arange(len(values)) * 0.618) % 1 - 0.5)
        beyond += figures.scatter(axis, values, spread, s=8, color=colour, alpha=0.7)
    axis.set_ylim(1.5, -0.5)
    axis.set_title(f"level {level.level}: ratio {level.ratio:.3g} ({level.low:.3g} to {level.high:.3g})", fontsize=9)
    everything = [time for values in series for time in values]
    note = f"\ntriangles: {beyond} run{'s' if beyond > 1 else ''} beyond the axis" if beyond else ""
    axis.set_xlabel(f"milliseconds per run, {min(everything):.3g} to {max(everything):.3g}{note}", fontsize=8)
    axis.set_yticks([0, 1], ["original", "folded"])
    axis.locator_params(axis="x", nbins=5)
    axis.spines[["top", "right"]].set_visible(False)
