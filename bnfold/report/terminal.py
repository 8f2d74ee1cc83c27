"""Where everything for people goes: a terminal, a pipe, a file. Here text is made harmless, and nowhere else."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from bnfold.report.escaping import harmless, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 120
"""Columns where the output is no terminal."""

Part = str | tuple[str, str]
"""A text, or a text and its style."""


def echo(text: str, *, err: bool = False, file: IO[str] | None = None) -> None:
    """Print one line without any style, on standard output, standard error or in a file."""
    _put(harmless(visible(text)) + "\n", file or (sys.stderr if err else sys.stdout))


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines that mean something, such as a traceback."""
    for line in text.removesuffix("\n").split("\n"):
        echo(line, err=err)


def echo_error(message: str, hint: str | None) -> None:
    """Print an error's two lines, on standard error."""
    echo(f"error: {message}", err=True)
    if hint:
        echo(f"hint: {hint}", err=True)


def redirect_warnings() -> None:
    """Print Python's warnings, which may quote a model, as everything else is printed."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: IO[str] | None = None,
        line: str | None = None,
    ) -> None:
        echo(f"{filename}:{lineno}: {category.__name__}: {message}", err=True, file=file)

    warnings.showwarning = show


class Terminal:
    """Where results go: lines, coloured and wrapped on a terminal, plain and whole in a pipe; tables by rich.

    rich is imported only where it is needed: it would be a tenth of a fold's time. There is no stream where standard
    output was closed.
    """

    def __init__(self, stream: IO[str] | None, *, color: bool) -> None:
        self._stream = stream
        self._color = color and "NO_COLOR" not in os.environ
        self._is_terminal = stream is not None and stream.isatty()
        self._looked_at = self._color and (self._is_terminal or "FORCE_COLOR" in os.environ)

    @property
    def is_terminal(self) -> bool:
        """True if a person looks at it now."""
        return self._is_terminal

    def line(self, *parts: Part, hang: int = 0) -> None:
        """Print texts, or texts with their styles, as one line; on a terminal, what wraps is indented by ``hang``."""
        if not self._looked_at:
            text = "".join(part if isinstance(part, str) else part[0] for part in parts)
            _put(harmless(visible(text)) + "\n", self._stream)
            return
        from rich.text import Text

        whole = Text.assemble(*map(_visible, parts))
        if not hang or not self._is_terminal:
            self._print(whole)
            return
        console = self._console()
        first, *rest = whole.wrap(console, max(console.width, 2 * hang))
        self._print(first)
        if rest:
            from rich.padding import Padding

            self._print(Padding(Text(" ").join(rest), (0, 0, 0, hang)))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Part]]) -> None:
        """Print a table; cells are texts, or texts with their styles. A pipe gets them with tabs between, unwrapped."""
        if not self._looked_at and not self._is_terminal:
            for row in (heads, *rows):
                cells = (visible(cell if isinstance(cell, str) else cell[0]) for cell in row)
                _put(harmless("\t".join(cells)) + "\n", self._stream)
            return
        from rich.table import Table
        from rich.text import Text

        shown = Table(*heads, box=None, header_style="bold", padding=(0, 1))
        for row in rows:
            shown.add_row(*(Text.assemble(_visible(cell)) for cell in row))
        self._print(shown)

    def _print(self, shown: RenderableType) -> None:
        """Print, once rich has laid it out: a line that it breaks may begin with anything."""
        console = self._console()
        with console.capture() as captured:
            console.print(shown)
        _put("\n".join(map(harmless, captured.get().split("\n"))), self._stream)

    def _console(self) -> Console:
        from rich.console import Console

        width = None if self._is_terminal else WIDTH
        plain: dict[str, Any] = {} if self._color else {"force_terminal": False, "color_system": None}
        return Console(file=self._stream, width=width, highlight=False, **plain)


def _visible(part: Part) -> Part:
    return visible(part) if isinstance(part, str) else (visible(part[0]), part[1])


def _put(text: str, stream: IO[str] | None) -> None:
    """Write text that is harmless, what the stream's encoding lacks as Python would write it."""
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False, file=stream, color=True)
