"""One worker process of :class:`bnfold.batch.processes.Processes`: pickled calls come in, their results go out.

Only bnfold itself writes to these pipes: nothing from a model file is ever unpickled.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any

from bnfold.report.terminal import redirect_warnings


def main() -> None:
    """Run calls from the standard input until it is closed, one after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers with SIGTERM
    signal.signal(signal.SIGTERM, _end)
    redirect_warnings()
    calls, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the results
    while True:
        try:
            function, arguments, named = pickle.load(calls)
        except EOFError:
            return
        try:
            reply: tuple[bool, Any] = True, function(*arguments, **named)
        except Exception as error:  # it is the caller's to handle, in the parent
            reply = False, error
        results.write(_pickled(reply))
        results.flush()


def _pickled(reply: tuple[bool, Any]) -> bytes:
    try:
        return pickle.dumps(reply)
    except Exception as error:  # an outcome may hold anything
        return pickle.dumps((False, RuntimeError(f"its result can't be sent: {type(error).__name__}: {error}")))


def _end(*_: object) -> None:
    raise SystemExit(143)  # clears away what was begun


if __name__ == "__main__":
    main()
