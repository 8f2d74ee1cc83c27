"""What the data files of a model hold, for attestations only: digests of gigabytes take long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnfold.errors import InputError
from bnfold.io.source import FileSource

Seen = tuple[Path, tuple[int, int]]
"""Where a file lies, and its size and time when it was opened."""


class DataFiles:
    """The files beside a model, by the names that it gives them: the handles that were read, and where the files lie.

    In another process, which a handle can't go to, a file is opened again, and must still be the same.
    """

    def __init__(self, files: Mapping[str, tuple[FileSource, Path]] | None = None) -> None:
        self._files = dict(files or {})
        self._seen: dict[str, Seen] = {}

    def sha256(self) -> dict[str, str]:
        """The digest of each file. Raises InputError for one that has changed since it was opened."""
        for name, (path, stamp) in self._seen.items():
            source = FileSource(path)
            if source.stamp != stamp:
                raise InputError(f"{path}: the file has changed while it was being worked on", "run again")
            self._files[name] = source, path
        self._seen.clear()
        digests = {name: source.sha256 for name, (source, _) in sorted(self._files.items())}
        for source, _ in self._files.values():
            source.check()
        return digests

    def __getstate__(self) -> dict[str, Any]:
        seen = {name: (path.absolute(), source.stamp) for name, (source, path) in self._files.items()}
        return {"_files": {}, "_seen": {**self._seen, **seen}}
