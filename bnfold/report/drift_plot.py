"""How far the data lie from the stored statistics, as a picture: a row per BatchNorm, a dot per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnfold.report.figures import label
from bnfold.results.drift import Drift
from bnfold.results.health import DRIFT

FARTHEST = 100.0
"""Standard deviations; what lies beyond is drawn there."""


def draw(drifts: Mapping[str, Drift], title: str = "") -> Any:
    """Draw the figure."""
    from matplotlib import pyplot

    names = list(drifts)
    figure, axis = pyplot.subplots(figsize=(7, 1.2 + 0.28 * max(1, len(names))), layout="constrained")
    for row, drift in enumerate(drifts.values()):
        away = np.clip(drift.distance, 1e-3, FARTHEST)
        height = row + 0.5 * ((np.arange(len(away)) * 0.618) % 1 - 0.5)
        axis.scatter(away, height, s=5, color="#4a90d9", alpha=0.5, linewidths=0)
        axis.scatter([np.clip(drift.rms, 1e-3, FARTHEST)], [row], marker="|", s=180, color="black")
    axis.axvline(DRIFT, color="#d62728", linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlim(5e-3, max(2.0, axis.get_xlim()[1]))
    axis.set_yticks(range(len(names)), [label(name) for name in names], fontsize=7)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("distance from the stored statistics, in standard deviations (bar: root mean square)")
    axis.set_title(label(title), fontsize=10)
    return figure
