"""The work on one model of many, in whatever process it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bnfold.api import fold, inspect
from bnfold.batch.manifest import digest_of
from bnfold.batch.records import Outcome, Record, Task
from bnfold.errors import BnfoldError, Refused, one_line
from bnfold.io.source import FileSource
from bnfold.loading import load_any
from bnfold.results.folding import Folding, as_comparison


def failed(task: Task, message: str, hint: str | None, exit_code: int) -> Outcome:
    """Return an outcome without a result; the message names the files as the user did."""
    message = message.replace(task.path, task.model)
    if task.target is not None and task.shown_target is not None:
        message = message.replace(task.target, task.shown_target)
    if task.data is not None:
        message = message.replace(task.data.path, task.data.shown)
    error = {"message": message, "hint": hint, "exit_code": exit_code}
    return Outcome(task.command, task.model, error=error)


def run_task(task: Task) -> Outcome:
    """Inspect or fold the model of a task. Never raises: a failure is an outcome too."""
    try:
        return _run(task)
    except Refused as error:
        refused = _with_shown_data(task, error.folding)
        outcome = failed(task, str(error), error.hint, error.exit_code)
        return replace(outcome, result=refused.to_dict(), comparison=as_comparison(refused))
    except BnfoldError as error:
        return failed(task, str(error), error.hint, error.exit_code)
    except MemoryError:
        return failed(task, f"{task.model}: it does not fit into memory", "fold it where there is more", 5)
    except OSError as error:
        return failed(task, f"{error.filename or task.model}: {error.strerror or error}", None, 5)
    except Exception as error:  # a bug must not stop the others
        return failed(task, f"{task.model}: a bug in bnfold: {one_line(error)}", "please report it", 70)


def _run(task: Task) -> Outcome:
    digest = digest_of(Path(task.path)) if task.recorded else ""
    known = task.known
    if known is not None and known.digest == digest and _output_unchanged(known):
        return Outcome(task.command, task.model, known.result, skipped=True)
    if task.command == "inspect":
        result, comparison, written = inspect(task.path, task.options).to_dict(), None, None
    else:
        ours = (known is not None and _output_unchanged(known)) or (task.recorded and _is_left_over(task))
        found = fold(task.path, task.target, task.options, force=task.force or ours, dry_run=task.dry_run)
        folding = _with_shown_data(task, found)
        result, comparison = folding.to_dict(), as_comparison(folding)
        written = None if folding.output is None else folding.output.path
    result = _with_shown_paths(task, result)
    record = None
    if task.recorded:
        target_digest = None if written is None else digest_of(Path(written))
        record = Record(task.command, task.path, task.asked, digest, written, target_digest, result)
    return Outcome(task.command, task.model, result, comparison=comparison, record=record)


def _with_shown_data(task: Task, folding: Folding) -> Folding:
    """Return the folding with the path of the data as the user wrote it."""
    found = folding.verification
    if task.data is None or found is None or not found.inputs["source"]:
        return folding
    return replace(folding, verification=replace(found, inputs={**found.inputs, "source": task.data.shown}))


def _with_shown_paths(task: Task, result: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a result with the paths of the model and of its fold as the user wrote them."""
    shown = {**result, "model": {**result["model"], "path": task.model}}
    if task.command == "fold" and result["output"] is not None:
        beside = Path(task.model).with_name(Path(result["output"]["path"]).name)
        shown["output"] = {**result["output"], "path": task.shown_target or str(beside)}
    return shown


def _output_unchanged(known: Record) -> bool:
    """Return True if what was written in an earlier run is still there, unchanged."""
    if known.target is None:
        return True
    try:
        return digest_of(Path(known.target)) == known.target_digest
    except BnfoldError:
        return False


def _is_left_over(task: Task) -> bool:
    """Return True if the target was made from the model by a run that was interrupted before it recorded that."""
    model = Path(task.path)
    target = Path(task.target) if task.target is not None else model.with_name(f"{model.stem}.folded{model.suffix}")
    try:
        digest = FileSource(model).sha256
        return target.is_file() and (FileSource(target).sha256 == digest or load_any(target).source()[1] == digest)
    except BnfoldError:
        return False
