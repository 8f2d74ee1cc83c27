"""The user's data of a run over many models: where it lies for every worker, and what it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.errors import BnfoldError
from bnfold.io.source import FileSource
from bnfold.options import FoldOptions


@dataclass(frozen=True)
class Fed:
    """``--inputs``: as the user wrote it, absolute for workers in other folders, and a digest of what it holds."""

    shown: str
    place: str
    digest: str


def fed_by(options: FoldOptions, *, digested: bool) -> Fed | None:
    """What the options feed to models; None for generated inputs."""
    data = None if options.verify is None else options.verify.runs.inputs.data
    if data is None:
        return None
    return Fed(str(data), str(data.absolute()), _digest(data) if digested else "")


def with_data(options: FoldOptions, place: str | None) -> FoldOptions:
    """The same options with the data at another place, or without any."""
    if options.verify is None:
        return options
    runs = options.verify.runs
    inputs = replace(runs.inputs, data=None if place is None else Path(place))
    return replace(options, verify=replace(options.verify, runs=replace(runs, inputs=inputs)))


def _digest(data: Path) -> str:
    """The sha256 of a file, or of all that a folder feeds; nothing for what can't be read, with which models fail."""
    try:
        if not data.is_dir():
            return FileSource(data).sha256
        files = sorted([*data.glob("input_*.pb"), *data.glob("test_data_set_*/input_*.pb")])
        lines = [f"{FileSource(file).sha256} {file.relative_to(data).as_posix()}\n" for file in files]
    except (BnfoldError, OSError, ValueError):
        return ""
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
