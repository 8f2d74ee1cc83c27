"""One model of many: what a worker is told, what it does, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnfold.batch.data import Fed, with_data
from bnfold.errors import BnfoldError, Refused, one_line
from bnfold.options import FoldOptions
from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.results.folding import Comparison, Folding

Command = Literal["fold", "inspect"]


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
    """One model. ``place``, ``target`` and the data in ``options`` are absolute.

    ``shown`` is the target as the user wrote it, ``fed`` says the same of the data, and what they are.
    """

    command: Command
    model: str
    target: str | None
    options: FoldOptions
    force: bool = False
    dry_run: bool = False
    place: str = ""
    known: Record | None = None
    recorded: bool = False
    shown: str | None = None
    fed: Fed | None = None

    @property
    def asked(self) -> str:
        """What makes two runs the same: version, options, data wherever it lies, what is to be written."""
        digest = None if self.fed is None else self.fed.digest
        return f"{__version__} {with_data(self.options, None)} {digest} {self.target} {self.dry_run}"

    def resumed(self, known: Record | None, recorded: bool) -> Task:
        """The same, with what is known of an earlier run."""
        return replace(self, known=known, recorded=recorded)


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a ``result`` (the JSON of the contract), or an ``error``.

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
        """0, or that of the failure."""
        return 0 if self.error is None else int(self.error["exit_code"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the result, or which model failed and how."""
        if self.result is not None:
            return {**self.result, "skipped": True} if self.skipped else self.result
        head = {"schema_version": 1, "tool": {"name": "bnfold", "version": __version__}, "command": self.command}
        return {**head, "model": {"path": self.model}, "error": self.error}


def failed(task: Task, message: str, hint: str | None, exit_code: int) -> Outcome:
    """An outcome without a result; the message names the model as the user did."""
    message = message.replace(task.place, task.model)
    if task.target is not None and task.shown is not None:
        message = message.replace(task.target, task.shown)
    if task.fed is not None:
        message = message.replace(task.fed.place, task.fed.shown)
    error = {"message": message, "hint": hint, "exit_code": exit_code}
    return Outcome(task.command, task.model, error=error)


def run_task(task: Task) -> Outcome:
    """The work itself, in whatever process. Never raises: a failure is an outcome too."""
    try:
        return _run(task)
    except Refused as error:
        from bnfold.results.folding import as_comparison

        _name_data(task, error.folding)
        outcome = failed(task, str(error), error.hint, error.exit_code)
        return replace(outcome, result=error.folding.to_dict(), comparison=as_comparison(error.folding))
    except BnfoldError as error:
        return failed(task, str(error), error.hint, error.exit_code)
    except MemoryError:
        return failed(task, f"{task.model}: it does not fit into memory", "fold it where there is more", 5)
    except OSError as error:
        return failed(task, f"{error.filename or task.model}: {error.strerror or error}", None, 5)
    except Exception as error:  # a bug must not stop the others
        return failed(task, f"{task.model}: a bug in bnfold: {one_line(error)}", "please report it", 70)


def _run(task: Task) -> Outcome:
    from bnfold.api import fold, inspect
    from bnfold.batch.manifest import digest_of

    digest = digest_of(Path(task.place)) if task.recorded else ""
    known = task.known
    target = task.target
    if known is not None and known.digest == digest and _stands(known):
        return Outcome(task.command, task.model, known.result, skipped=True)
    if task.command == "inspect":
        result, comparison, written = inspect(task.place, task.options).to_dict(), None, None
    else:
        from bnfold.results.folding import as_comparison

        ours = (known is not None and _stands(known)) or (task.recorded and _is_left_over(task, target))
        force = task.force or ours
        folding = fold(task.place, target, task.options, force=force, dry_run=task.dry_run)
        _name_data(task, folding)
        result, comparison = folding.to_dict(), as_comparison(folding)
        written = None if folding.output is None else folding.output.path
    result["model"]["path"] = task.model
    if task.command == "fold" and result["output"] is not None:
        given = Path(task.model).with_name(Path(result["output"]["path"]).name)
        result["output"]["path"] = str(given) if task.shown is None else task.shown
    record = None
    if task.recorded:
        target_digest = None if written is None else digest_of(Path(written))
        record = Record(task.command, task.place, task.asked, digest, written, target_digest, result)
    return Outcome(task.command, task.model, result, comparison=comparison, record=record)


def _name_data(task: Task, folding: Folding) -> None:
    """Call the data what the user calls it."""
    if task.fed is not None and folding.verification is not None and folding.verification.inputs["source"]:
        folding.verification.inputs["source"] = task.fed.shown


def _stands(known: Record) -> bool:
    """True if what was written then is still there, unchanged."""
    from bnfold.batch.manifest import digest_of

    if known.target is None:
        return True
    try:
        return digest_of(Path(known.target)) == known.target_digest
    except BnfoldError:
        return False


def _is_left_over(task: Task, target: str | None) -> bool:
    """True if the target was made from the model, by a run that was cut off before it could note that."""
    from bnfold.io.source import FileSource
    from bnfold.loading import load_any

    place = Path(task.place)
    path = Path(target) if target is not None else place.with_name(f"{place.stem}.folded{place.suffix}")
    try:
        digest = FileSource(place).sha256
        return path.is_file() and (FileSource(path).sha256 == digest or load_any(path).source()[1] == digest)
    except BnfoldError:
        return False
