"""A file that is being written, chunk by chunk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bnfold.io.source import FileSource
from bnfold.io.tensor_data import Stored
from bnfold.progress import report

AHEAD = 2**23
"""Bytes after which write-back is started: on Linux, advice that they are not needed does that."""


class NewFile:
    """A file that is being written: whole chunks, synced at the end; the disk starts while the rest is still computed.

    Raises OSError, and FileExistsError if it is there already.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> NewFile:
        self._file = open(self._path, "xb", buffering=0)
        self.size = self._started = 0
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())

    def write(self, data: bytes | memoryview) -> None:
        """Append all of ``data``."""
        left = memoryview(data)
        while left:
            count = self._file.write(left) or 0
            left = left[count:]
            self._grown(count)

    def copy(self, data: Stored) -> None:
        """Append stored bytes, inside the kernel where it can, so that no weight passes through memory."""
        done = 0
        if isinstance(data.source, FileSource) and hasattr(os, "copy_file_range"):
            with contextlib.suppress(OSError):  # not between these two file systems
                while done < data.size:
                    left = min(data.size - done, AHEAD)
                    copied = os.copy_file_range(data.source.handle, self._file.fileno(), left, data.offset + done)
                    if not copied:
                        break
                    done += copied
                    self._grown(copied)
            self._file.seek(self.size)
        for chunk in data.source.chunks(data.offset + done, data.size - done):
            self.write(chunk)

    def _grown(self, count: int) -> None:
        self.size += count
        report(self.size >> 20, None, "MiB written")
        if self.size - self._started >= AHEAD and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), self._started, self.size - self._started, os.POSIX_FADV_DONTNEED)
            self._started = self.size
