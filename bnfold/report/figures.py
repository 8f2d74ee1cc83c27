"""matplotlib's figures as files, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import OutputError

BLUE, GREY, RED = "#3f83cc", "#8a8a8a", "#d62728"
"""Readable on white and on black."""

WIDTH = 4.2
"""Inches: letters stay readable where a phone shrinks a figure to its width."""

LETTERS = 52
"""How many of a name fit into that width."""


def label(name: str, letters: int = LETTERS) -> str:
    """Return a name from a model as matplotlib can show it: short, printable, no formula."""
    shown = "".join(character if character.isprintable() and character != "$" else "?" for character in name)
    return shown if len(shown) <= letters else f"…{shown[1 - letters :]}"


def rows(names: list[str], height: float = 0.42) -> tuple[Any, Any]:
    """Return a figure and an axis with a row per name, which stands above its row: there is no room beside it."""
    from matplotlib import pyplot

    size = (WIDTH, 1.1 + height * max(1, len(names)))
    figure, axis = pyplot.subplots(figsize=size, layout="constrained")
    for row, name in enumerate(names):
        axis.annotate(label(name), (0, row - 0.3), (3, 0), ("axes fraction", "data"), "offset points", size=8)
        axis.axhline(row, color=GREY, linewidth=0.4, zorder=0)
    axis.set_yticks([])
    axis.set_ylim(len(names) - 0.4, -0.85)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    return figure, axis


def log_axis(axis: Any, values: Any, low: float, high: float) -> None:
    """Make the x axis logarithmic, as wide as the values that lie between ``low`` and ``high``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    inside = np.asarray(values, dtype=np.float64)
    inside = inside[(inside >= low) & (inside <= high)]
    first, last = (float(inside.min()), float(inside.max())) if inside.size else (low, high)
    axis.set_xscale("log")
    axis.set_xlim(first / 1.6, last * 1.6)
    decades = np.log10(last / first * 2.56)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,), numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def scatter(axis: Any, values: Any, heights: Any, **style: Any) -> int:
    """Draw dots; those beyond the axis are triangles at its end. Return how many of these there are."""
    low, high = axis.get_xlim()
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    places = np.asarray(heights, dtype=np.float64)
    below, above = array < low, ~(array <= high)  # NaN is no number that is small
    inside = ~below & ~above
    axis.scatter(array[inside], places[inside], linewidths=0, **style)
    for there, end, marker in ((below, 0.015, "<"), (above, 0.985, ">")):
        x = np.full(int(there.sum()), end)
        axis.scatter(x, places[there], marker=marker, transform=axis.get_yaxis_transform(), **(style | {"s": 22}))
    return int((below | above).sum())


def mark(axis: Any, x: float, row: int, colour: str, name: str) -> None:
    """Draw a limit across one row; it is named in the legend once. A line through all rows would cross their names."""
    once = {"label": name} if name not in axis.get_legend_handles_labels()[1] else {}
    axis.plot([x, x], [row - 0.22, row + 0.22], color=colour, linewidth=2, **once)


def legend(axis: Any, columns: int = 3) -> None:
    """Put the legend above the axis, where it hides nothing."""
    style = {"fontsize": 8, "frameon": False, "handletextpad": 0.4, "columnspacing": 1.2}
    axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2, **style)


def save(draw: Callable[[], Any], target: str) -> None:
    """Write what ``draw`` makes, without a display. Raises OutputError where it can't be written."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    figure = draw()
    try:
        figure.savefig(target)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)
