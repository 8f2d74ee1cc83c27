"""Progress of long work: the code that does it reports, a caller may listen; no argument is passed along."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

Listener = Callable[[int, int | None, str], None]
"""Receives how many steps are done, of how many (None: unknown), and what is going on."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def report(done: int, total: int | None, what: str) -> None:
    """Report that ``done`` of ``total`` steps (None: unknown) are done; ``what`` comes next."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, what)


def to_file(path: Path) -> Listener:
    """Return a listener for processes: it writes both numbers to a file, five times a second at most."""
    last = 0.0

    def listener(done: int, total: int | None, what: str) -> None:
        """Write, if it is time."""
        nonlocal last
        if total and time.monotonic() - last > 0.2:
            last = time.monotonic()
            path.write_text(f"{done} {total}")

    return listener


def is_listening() -> bool:
    """Return True if there is a listener."""
    return _listener.get() is not None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` receive what is reported inside of the block, in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
