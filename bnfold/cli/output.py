"""Where a command writes its result: for people, as JSON, and its progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bnfold.cli.files import write_text
from bnfold.cli.params import FILE, option
from bnfold.errors import OutputError, UsageError
from bnfold.report.terminal import Terminal
from bnfold.timing import Stopwatch
from bnfold.wording import duration


@dataclass(frozen=True)
class OutputParams:
    """``--json``, ``--quiet``, ``--verbose``, ``--no-color``: every command has them."""

    json_file: str | None = option(
        "--json",
        "json_file",
        metavar="FILE",
        type=FILE,
        help="Write the result as JSON; - for standard output.",
        section="Report",
    )
    quiet: bool = option("--quiet", is_flag=True, help="Print errors only.")
    verbose: bool = option("--verbose", is_flag=True, help="Report more; tracebacks for bugs.")
    no_color: bool = option("--no-color", is_flag=True, help="Plain text (as does the variable NO_COLOR).")

    @property
    def shows_report(self) -> bool:
        """True if there is a report for people: not with ``--quiet``, nor with JSON on standard output."""
        return not self.quiet and self.json_file != "-"

    def terminal(self, *, model_on_stdout: bool = False) -> Terminal:
        """Return where the report for people goes: standard output, unless something else is written there."""
        stream = sys.stderr if self.json_file == "-" or model_on_stdout else sys.stdout
        return Terminal(stream, color=not self.no_color)

    def check_json_target(self, *, model_on_stdout: bool = False) -> None:
        """Refuse a place for the JSON that would cost the user a file, before any work is done.

        Raises UsageError or OutputError.
        """
        target = self.json_file
        if target is None:
            return
        if target == "-":
            if model_on_stdout:
                raise UsageError("--json -: standard output takes the model already", "name a file for one of them")
            return
        path = Path(target)
        try:
            if path.exists() and (not path.is_file() or path.read_bytes()[:1] not in (b"", b"{")):
                raise UsageError(f"--json {target}: exists and is no JSON", "name another file")
            if not path.absolute().parent.is_dir():
                raise OutputError(f"--json {target}: its folder does not exist", "create it first")
        except OSError as error:
            raise OutputError(f"--json {target}: {error.strerror or error}") from None

    def write_json(self, result: dict[str, Any], *, line: bool = False) -> None:
        """Write a result as JSON, or as one ``line`` of it among others, if that was asked for. Raises OutputError."""
        target = self.json_file
        if target is None:
            return
        from bnfold.report.formats.common import dumps

        text = dumps(result if line else {**result, "elapsed_seconds": round(_elapsed(), 3)}, line=line)
        if target == "-":
            click.echo(text, nl=False)
            return
        write_text(Path(target), text)

    def print_elapsed(self, terminal: Terminal) -> None:
        """Print how long the command took, last: on a terminal or with ``--verbose``.

        What a pipe or a file gets is the same for the same models, so that it can be compared.
        """
        if self.shows_report and (self.verbose or terminal.is_terminal):
            terminal.line((f"Took {duration(_elapsed())}", "dim"))

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a bar for work that takes long, on a terminal; nothing with ``--quiet``."""
        if self.quiet or sys.stderr is None or not sys.stderr.isatty():
            yield
            return
        from bnfold.progress import listening
        from bnfold.report.bar import Bar

        with Bar(sys.stderr, color=not self.no_color) as bar, listening(bar):
            yield


def _elapsed() -> float:
    """Return the seconds since the command was called."""
    context = click.get_current_context(silent=True)
    watch = None if context is None else context.find_object(Stopwatch)
    return 0.0 if watch is None else watch.seconds
