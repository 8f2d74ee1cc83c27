"""What can go wrong, in one place: each error knows its exit code and what the user can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def one_line(error: BaseException, longest: int = 200) -> str:
    """Somebody else's error, for a message of one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:longest]


class BnfoldError(Exception):
    """A failure that bnfold explains: one line that names the file (and node), one with what to do."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.hint = " ".join(hint.split())


def unreadable(path: Path, error: Exception) -> InputError:
    """Return why a file can't be read, as an error that names the first folder of its path that is not there."""
    try:
        missing = next((p for p in reversed(path.parents) if not p.exists()), None)
    except (OSError, ValueError):
        missing = None
    if missing is not None:
        return InputError(f"{path}: the folder {str(missing)!r} does not exist", "check the path")
    return InputError(f"{path}: {getattr(error, 'strerror', None) or error}", "check the path")


class UsageError(BnfoldError):
    """The call is wrong (click's own exit code)."""

    exit_code = 2


class InconclusiveError(BnfoldError):
    """The question can't be answered here: no device, no runtime, no inputs."""

    exit_code = 3


class InputError(BnfoldError):
    """The input is refused: unreadable, invalid or unsafe. Nothing was run from it."""

    exit_code = 4


class OutputError(BnfoldError):
    """The output could not be written; what stood there before still stands."""

    exit_code = 5


class Refused(OutputError):
    """The folded model failed its verification and was not written; ``folding`` is what was found."""

    exit_code = 1

    def __init__(self, message: str, folding: Any) -> None:
        super().__init__(message, "nothing was written; please report this with the model if you can")
        self.folding = folding
