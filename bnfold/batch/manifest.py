"""The manifest of a run over many models: one line of JSON for each that is done."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bnfold.batch.records import Record, Task
from bnfold.errors import InputError, OutputError
from bnfold.io.source import FileSource

START = b'{"command"'
"""What a line begins with, even an incomplete one."""


class Manifest:
    """What is done, in a file that is only ever appended to. An incomplete last line is ignored and overwritten.

    Raises InputError for a file that is no manifest, OutputError where it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[tuple[str, str], Record] = {}
        self._end = 0
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}", "name another file for the manifest") from None
        for number, line in enumerate(lines, start=1):
            record = _parsed(line)
            if record is None or not line.endswith(b"\n"):
                if number < len(lines) or not line.startswith(START):
                    raise InputError(f"{path}: line {number} is not of a manifest", "name another file, or delete it")
                break
            self._records[record.command, record.model] = record
            self._end += len(line)

    def known(self, task: Task) -> Record | None:
        """Return the record of a task that was done with the same options, data and target."""
        record = self._records.get((task.command, task.path))
        return record if record is not None and record.asked == task.asked else None

    def add(self, record: Record) -> None:
        """Append a record and flush it to the disk. Raises OutputError."""
        line = json.dumps(asdict(record)).encode()
        try:
            with self._path.open("r+b" if self._path.exists() else "xb") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror or error}", "name another file") from None


def _parsed(line: bytes) -> Record | None:
    try:
        fields: Any = json.loads(line)
        return Record(**fields)
    except (ValueError, TypeError):
        return None


def digest_of(path: Path) -> str:
    """Return the sha256 of a model file and of the data files that it names. Raises InputError."""
    from bnfold.io.external import external_tensors
    from bnfold.io.load import parsed, readable
    from bnfold.io.sniff import kind_of_source

    source = FileSource(path)
    source.hash_ahead()
    if kind_of_source(source) != "onnx":
        return source.sha256
    model = parsed(source, path)
    with readable((str(path), model.proto)):
        tensors = external_tensors(model.proto)
    spans = [model.external.span(tensor) for tensor in tensors]
    files = dict(sorted({span.path: span.source for span in spans}.items()))
    if not files:
        return source.sha256
    return hashlib.sha256("".join([source.sha256, *(file.sha256 for file in files.values())]).encode()).hexdigest()
