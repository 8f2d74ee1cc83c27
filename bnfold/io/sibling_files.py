"""Files that a model names, opened as onnx's own loader does: no link is followed on the way, so no name leads out.

What is checked is what was opened: each folder below the model's is opened from the one before, and a file is judged
by its descriptor.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bnfold.errors import InputError
from bnfold.io.source import FileSource

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Without O_NONBLOCK, opening a pipe would wait for a writer."""

HINT = "put the file itself beside the model"


def parts_of(location: str, tensor: str) -> tuple[str, ...]:
    """The folders and the file that a location names. Raises InputError unless all of it lies beside the model."""
    path = Path(location)
    if not location or path.is_absolute() or ".." in path.parts or "\\" in location or "\0" in location:
        raise InputError(
            f"tensor {tensor!r} points to {location!r}, outside the model's folder",
            "external data must lie beside the model, under a relative name",
        )
    if not path.parts or location.endswith("/"):
        raise InputError(f"tensor {tensor!r}: {location!r} is not a regular file", HINT)
    return path.parts


def open_beside(folder: Path, location: str, tensor: str) -> FileSource:
    """The data file of ``tensor``. Raises InputError for a link, a file of several names, and what is no file."""
    parts = parts_of(location, tensor)
    path = folder.joinpath(*parts)
    try:
        handle = _opened(folder, parts)
    except (OSError, ValueError) as error:
        raise InputError(f"tensor {tensor!r}: {_cause(folder, parts, location, error)}", HINT) from None
    status = os.fstat(handle)
    names = status.st_nlink
    if not stat.S_ISREG(status.st_mode) or names > 1:
        os.close(handle)
        if names > 1 and stat.S_ISREG(status.st_mode):
            raise InputError(
                f"tensor {tensor!r}: {location!r} has {names} names (hard links), of which others may lie outside",
                "put a copy beside the model: onnx's own loader refuses it too",
            )
        raise InputError(f"tensor {tensor!r}: {location!r} is not a regular file", HINT)
    return FileSource(path, handle)


def _opened(folder: Path, parts: tuple[str, ...]) -> int:
    """The descriptor of a file, reached without following a link. Raises OSError."""
    if os.open not in os.supports_dir_fd:  # Windows
        if (link := _first_link(folder, parts)) is not None:
            raise OSError(f"{link} is a link")
        return os.open(folder.joinpath(*parts), _FILE)
    within = os.open(folder, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=within)
            os.close(within)
            within = inner
        return os.open(parts[-1], _FILE, dir_fd=within)
    finally:
        os.close(within)


def _first_link(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The first of the path's steps below the model's folder that is a link."""
    path = folder
    for part in parts:
        path = path / part
        attributes = getattr(os.lstat(path), "st_file_attributes", 0)
        if path.is_symlink() or attributes & getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0):
            return path
    return None


def _cause(folder: Path, parts: tuple[str, ...], location: str, error: Exception) -> str:
    """Return why a file could not be opened, looked for once it could not."""
    try:
        link = _first_link(folder, parts)
    except FileNotFoundError:
        return f"its data file {location!r} is missing"
    except (OSError, ValueError):
        link = None
    if link is not None:
        what = "is a link" if link == folder.joinpath(*parts) else f"lies behind the link {link.name!r}"
        return f"{location!r} {what}, which onnx's own loader refuses too"
    return f"{location!r}: {getattr(error, 'strerror', None) or error}"
