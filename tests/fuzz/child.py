"""Work in a forked process, which may crash without harm to this one."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def in_child(work: Callable[[], int]) -> int:
    """Start ``work`` in a forked process without output; its number."""
    if child := os.fork():
        return child
    code = 99
    try:
        os.setsid()
        quiet = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        code = work()
    except BaseException as error:  # a change that breaks an import, say: noticed
        traceback.print_exc()
        code = 1 if not isinstance(error, KeyboardInterrupt) else 99
    os._exit(code)
