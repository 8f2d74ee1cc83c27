"""How far the data lie from the stored statistics, as a picture: a row per BatchNorm, a dot per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnfold.report import figures
from bnfold.results.drift import Drift
from bnfold.results.health import DRIFT

NEAREST, FARTHEST = 1e-3, 1000.0
"""Standard deviations; what lies beyond is a triangle on the edge."""


def draw(drifts: Mapping[str, Drift], title: str = "") -> Any:
    """Draw the figure."""
    figure, axis = figures.rows(list(drifts))
    figures.log_axis(axis, np.concatenate([[DRIFT], *(drift.distance for drift in drifts.values())]), NEAREST, FARTHEST)
    beyond = 0
    for row, drift in enumerate(drifts.values()):
        height = row + 0.4 * ((np.arange(len(drift.distance)) * 0.618) % 1 - 0.5)
        beyond += figures.scatter(axis, drift.distance, height, s=9, alpha=0.6, color=figures.BLUE)
        figures.mark(axis, DRIFT, row, figures.RED, f"warning limit ({DRIFT:g})")
        axis.scatter([np.clip(drift.rms, *axis.get_xlim())], [row], marker="|", s=180, color="black", zorder=3)
    axis.scatter([], [], s=12, color=figures.BLUE, label="channel")
    axis.scatter([], [], marker="|", s=80, color="black", label="root mean square")
    figures.legend(axis)
    note = f"\n{beyond} channel{'s' if beyond > 1 else ''} beyond the axis: triangles" if beyond else ""
    axis.set_xlabel(f"distance from the stored statistics, in standard deviations{note}", fontsize=8)
    if title:
        figure.suptitle(figures.label(title), fontsize=10, x=0.01, ha="left")
    return figure
