"""Where results for people go: a terminal, a pipe, a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 120
"""Columns where the output is no terminal."""

Part = str | tuple[str, str]
"""A text, or a text and its style."""


class Terminal:
    """Where results go: lines, coloured and wrapped on a terminal, plain and whole in a pipe; tables by rich.

    rich is imported only where it is needed: it would be a tenth of a fold's time.
    """

    def __init__(self, stream: IO[str], *, color: bool) -> None:
        self._stream = stream
        self._color = color and "NO_COLOR" not in os.environ
        self._looked_at = self._color and (stream.isatty() or "FORCE_COLOR" in os.environ)

    def line(self, *parts: Part) -> None:
        """Texts, or texts with their styles, as one line."""
        if not self._looked_at:
            click.echo("".join(part if isinstance(part, str) else part[0] for part in parts), file=self._stream)
            return
        from rich.text import Text

        self._console().print(Text.assemble(*parts))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Part]]) -> None:
        """A table; cells are texts, or texts with their styles."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(*heads, box=None, header_style="bold", padding=(0, 1))
        for row in rows:
            shown.add_row(*(Text.assemble(cell) for cell in row))
        self._console().print(shown)

    def _console(self) -> Console:
        from rich.console import Console

        width = None if self._stream.isatty() else WIDTH
        plain = {} if self._color else {"force_terminal": False, "color_system": None}
        return Console(file=self._stream, width=width, highlight=False, **plain)  # type: ignore[arg-type]
