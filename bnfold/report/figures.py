"""matplotlib's figures as files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnfold.errors import OutputError


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
