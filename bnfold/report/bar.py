"""A progress bar on a terminal, for work that takes more than a second: a listener of :mod:`bnfold.progress`."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING

from bnfold.report.escaping import harmless, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds of work before a bar shows."""


class Bar:
    """Draw how far the work is each time that it is reported; rich is imported when the first second is over."""

    def __init__(self, stream: IO[str], *, color: bool = True) -> None:
        self._stream, self._color = stream, color and "NO_COLOR" not in os.environ
        self._start = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Draw that ``done`` of ``total`` steps (None: unknown) are done; ``what`` comes next."""
        if time.monotonic() - self._start < PATIENCE:
            return
        if self._bar is None:
            self._begin()
        assert self._bar is not None and self._task is not None
        self._bar.update(self._task, completed=done, total=total, description=harmless(visible(what)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(file=self._stream, no_color=not self._color)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=None)
        self._bar.start()
