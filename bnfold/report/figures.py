"""matplotlib's figures as files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnfold.errors import OutputError


def label(name: str) -> str:
    """Return a name from a model as matplotlib can show it: short, printable, no formula."""
    shown = "".join(character if character.isprintable() and character != "$" else "?" for character in name)
    return shown if len(shown) <= 44 else f"…{shown[-43:]}"


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
