"""What a run over many models hands between its parts: a task, what it makes, what the manifest keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bnfold.options import FoldOptions
from bnfold.results.model import head
from bnfold.results.verification import Comparison
from bnfold.version import __version__

Command = Literal["fold", "inspect"]


@dataclass(frozen=True)
class InputData:
    """``--inputs``: as the user wrote it, absolute for workers in other folders, and a digest of what it holds."""

    shown: str
    path: str
    digest: str


@dataclass(frozen=True)
class Record:
    """What the manifest remembers of a model that is done: its digest, its result's, and what was asked for."""

    command: Command
    model: str
    asked: str
    digest: str
    target: str | None
    target_digest: str | None
    result: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One model, as the user wrote it; ``path``, ``target`` and the data in ``options`` are absolute.

    ``shown_target`` is the target as the user wrote it. ``data`` are the user's inputs. ``known`` is the record of an
    earlier run; with ``recorded`` the outcome gets one for the next.
    """

    command: Command
    model: str
    target: str | None
    options: FoldOptions
    force: bool = False
    dry_run: bool = False
    path: str = ""
    known: Record | None = None
    recorded: bool = False
    shown_target: str | None = None
    data: InputData | None = None

    @property
    def asked(self) -> str:
        """What must be the same to skip a model: version, options, data (wherever it lies), target."""
        digest = None if self.data is None else self.data.digest
        return f"{__version__} {with_data(self.options, None)} {digest} {self.target} {self.dry_run}"

    def resumed(self, known: Record | None, recorded: bool) -> Task:
        """Return the task with what is known of an earlier run."""
        return replace(self, known=known, recorded=recorded)


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a ``result`` (the JSON of the command), or an ``error``.

    ``skipped``: it was done before, and nothing has changed. ``comparison`` is what reports are made of.
    """

    command: Command
    model: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    skipped: bool = False
    comparison: Comparison | None = None
    record: Record | None = None

    @property
    def exit_code(self) -> int:
        """Return 0, or that of the failure."""
        return 0 if self.error is None else int(self.error["exit_code"])

    def to_dict(self) -> dict[str, Any]:
        """Return as JSON the result, or which model failed and how."""
        if self.result is not None:
            return {**self.result, "skipped": True} if self.skipped else self.result
        return {**head(self.command), "model": {"path": self.model}, "error": self.error}


def with_data(options: FoldOptions, path: str | None) -> FoldOptions:
    """Return the options with the data at another path, or without any."""
    if options.verify is None:
        return options
    runs = options.verify.runs
    inputs = replace(runs.inputs, data=None if path is None else Path(path))
    return replace(options, verify=replace(options.verify, runs=replace(runs, inputs=inputs)))
