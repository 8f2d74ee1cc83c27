"""The user's data of a run over many models: where it lies for every worker, and a digest of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bnfold.batch.records import InputData
from bnfold.errors import BnfoldError
from bnfold.io.source import FileSource
from bnfold.options import FoldOptions


def input_data(options: FoldOptions, *, digested: bool) -> InputData | None:
    """Return the user's data that models are verified on; None for generated inputs."""
    data = None if options.verify is None else options.verify.runs.inputs.data
    if data is None:
        return None
    return InputData(str(data), str(data.absolute()), _digest(data) if digested else "")


def _digest(data: Path) -> str:
    """Return the sha256 of a file or of a folder's inputs; nothing for what can't be read, with which models fail."""
    try:
        if not data.is_dir():
            return FileSource(data).sha256
        files = sorted([*data.glob("input_*.pb"), *data.glob("test_data_set_*/input_*.pb")])
        lines = [f"{FileSource(file).sha256} {file.relative_to(data).as_posix()}\n" for file in files]
    except (BnfoldError, OSError, ValueError):
        return ""
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
