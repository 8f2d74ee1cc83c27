"""The bytes that a model comes from: a regular file, read chunk by chunk, or what a stream or a caller gave.

Nothing is mapped: a mapped file that another process truncates kills its reader. One open handle serves all reads, so
that a file may be replaced under its name (``--in-place``) while it is worked on; whether it was changed is asked at
the end.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from bnfold.errors import InputError, unreadable

CHUNK = 2**20
"""Bytes read at a time."""

HASHED = 2**23
"""Bytes digested at a time: the thread that does it waits for Python's lock between them."""


class BytesSource:
    """Bytes that are in memory already."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on."""
        return self._data[offset : offset + length]

    def into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes from ``offset`` on."""
        view[:] = self._data[offset : offset + len(view)]

    def chunks(self, offset: int, length: int) -> Iterator[memoryview]:
        """The same as ``read``, chunk by chunk."""
        view = memoryview(self._data)[offset : offset + length]
        yield from (view[at : at + CHUNK] for at in range(0, length, CHUNK))

    @property
    def sha256(self) -> str:
        """The digest of all bytes."""
        return hashlib.sha256(self._data).hexdigest()

    def check(self) -> None:
        """Bytes in memory don't change."""


class FileSource:
    """A regular file; ``handle`` is its descriptor, of a file that has been opened and looked at if it is given.

    ``stamp`` is its size and time when it was opened.

    Raises InputError where it can't be read, and for one that has changed since it was opened.
    """

    def __init__(self, path: Path, handle: int | None = None) -> None:
        self.name = str(path)
        self.handle = _opened(path) if handle is None else handle
        weakref.finalize(self, os.close, self.handle)
        self.stamp = self._now()
        self.size = self.stamp[0]
        self._seeking = threading.Lock()
        self._hashing: threading.Thread | None = None
        self._digest: str | InputError = ""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on. Raises InputError if the file has become shorter."""
        data = bytearray(length)
        self.into(offset, memoryview(data))
        return bytes(data)

    def into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the bytes from ``offset`` on. Raises InputError if the file has become shorter."""
        while view:
            try:
                count = self._read_once(offset, view)
            except OSError as error:
                raise InputError(f"{self.name}: {error.strerror}", "check the disk") from None
            if not count:
                raise InputError(f"{self.name}: the file has become shorter while it was read", "run again")
            offset, view = offset + count, view[count:]

    def chunks(self, offset: int, length: int, size: int = CHUNK) -> Iterator[memoryview]:
        """The same in chunks of ``size``; each is freed when the next one is asked for."""
        buffer = memoryview(bytearray(min(size, length)))
        for at in range(offset, offset + length, size):
            chunk = buffer[: min(size, offset + length - at)]
            self.into(at, chunk)
            yield chunk

    def hash_ahead(self) -> None:
        """Compute the digest beside other work, where that is worth a thread."""
        if self._hashing is not None or self._digest:
            return
        if self.size < CHUNK:
            self._hash()
        else:
            self._hashing = threading.Thread(target=self._hash, daemon=True)
            self._hashing.start()

    @property
    def sha256(self) -> str:
        """The digest of the whole file. Raises InputError if the file has become shorter."""
        self.hash_ahead()
        if self._hashing is not None:
            self._hashing.join()
        if isinstance(self._digest, InputError):
            raise self._digest
        return self._digest

    def check(self) -> None:
        """Raise InputError if the file has changed since it was opened."""
        if self._now() != self.stamp:
            raise InputError(f"{self.name}: the file has changed while it was being worked on", "run again")

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns

    def _read_once(self, offset: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.handle, [view], offset)
        with self._seeking:  # Windows has one position per handle
            os.lseek(self.handle, offset, os.SEEK_SET)
            data = os.read(self.handle, len(view))
        view[: len(data)] = data
        return len(data)

    def _hash(self) -> None:
        digest = hashlib.sha256()
        try:
            for chunk in self.chunks(0, self.size, HASHED):
                digest.update(chunk)
            self._digest = digest.hexdigest()
        except InputError as error:
            self._digest = error


def _opened(path: Path) -> int:
    """The descriptor of a regular file. What has no end or no content is not even opened. Raises InputError."""
    try:
        _check_regular(path, os.stat(path).st_mode)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    try:
        _check_regular(path, os.fstat(handle).st_mode)  # another file may have taken its name
    except InputError:
        os.close(handle)
        raise
    return handle


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: a folder, not a model", "name the .onnx or .pt2 file in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: not a regular file", "give the model's file itself")


Source = BytesSource | FileSource
