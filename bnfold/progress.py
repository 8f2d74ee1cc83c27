"""How far long work is: whoever does it tells, whoever wants to know listens. Nobody need pass anything along."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

Listener = Callable[[int, int | None, str], None]
"""Told how many steps are done, of how many (None: nobody knows), and what is going on."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def report(done: int, total: int | None, what: str) -> None:
    """Say how far the work is."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, what)


def to_file(path: Path) -> Listener:
    """A listener for processes: writes both numbers into a file, five times a second at most."""
    last = 0.0

    def listener(done: int, total: int | None, what: str) -> None:
        """Write, if it is time."""
        nonlocal last
        if total and time.monotonic() - last > 0.2:
            last = time.monotonic()
            path.write_text(f"{done} {total}")

    return listener


def is_listening() -> bool:
    """True if anybody listens."""
    return _listener.get() is not None


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` receive what is reported inside of the block, in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
