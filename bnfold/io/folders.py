"""Temporary folders that leave nothing behind: what a killed process left is swept away by the next run.

Each folder is locked as long as its process lives (the kernel releases the lock of a dead one); a folder that no
process holds is stale. A folder that publishes files records them first: what it had published when it died, without
the model that they belong to, is removed too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is swept there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".bnfold-"
"""Of folders beside a target."""

JOB = "bnfold-job-"
"""Of folders among the system's temporary files."""

NOTE = "publishing.json"
OWNED = "made-by-bnfold"
"""A file that says whose folder it is; it is what the process holds."""

YOUNG = 1.0
"""Seconds for which a folder that no process holds is left alone: its process may be about to lock it."""


@contextlib.contextmanager
def temporary(parent: Path | None = None) -> Iterator[Path]:
    """A folder in ``parent`` (None: where temporary files go), gone at the end. Raises OSError."""
    prefix = JOB if parent is None else PREFIX
    where = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(where, prefix)
    folder = where / f"{prefix}{secrets.token_hex(8)}"
    try:  # known before it is made: a signal at any moment finds what there is to remove
        folder.mkdir(mode=0o700)
        (folder / OWNED).touch()
        with _locked(folder):
            yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:  # a signal while it goes
            shutil.rmtree(folder, ignore_errors=True)
            raise


def note(folder: Path, model: str, data: Iterable[Path]) -> None:
    """Write down which files of ``folder`` are about to be put beside it, before the ``model`` that needs them."""
    inodes = {path.name: os.stat(path).st_ino for path in data}
    (folder / NOTE).write_text(json.dumps({"model": model, "data": inodes}))


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders in ``parent`` whose processes died. Never raises: their remains must not fail this process."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                    _remove_stale(Path(entry.path))


def _remove_stale(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.getuid() or time.time() - status.st_ctime < YOUNG:
        return
    if not os.listdir(folder):
        folder.rmdir()
        return
    with _locked(folder):
        if (folder / NOTE).is_file():
            _take_back(folder, **json.loads((folder / NOTE).read_text()))
        shutil.rmtree(folder)


def _take_back(folder: Path, model: str, data: dict[str, int]) -> None:
    """Remove what was put beside ``folder``, unless the model that needs it is there too."""
    inodes = {entry.inode(): entry.name for entry in os.scandir(folder.parent) if entry.is_file(follow_symlinks=False)}
    staged = folder / model
    if staged.exists() and staged.stat().st_ino not in inodes:
        for name, inode in data.items():
            if inodes.get(inode) == Path(name).name:
                (folder.parent / Path(name).name).unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder. Raises OSError if another process does."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder / OWNED, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
