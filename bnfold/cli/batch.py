"""Several models in one call of ``fold`` or ``inspect``: options, lines, the table, the exit code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from bnfold.cli.options import FILE
from bnfold.errors import InconclusiveError, OutputError, UsageError
from bnfold.report.terminal import echo, echo_error

if TYPE_CHECKING:
    from bnfold.batch.run import Outcome
    from bnfold.report.terminal import Part, Terminal


def sharing(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--jobs``, ``--dask``, ``--resume``: what only several models need."""
    for option in (
        click.option(
            "--resume",
            metavar="FILE",
            type=FILE,
            help="Remember in FILE what is done; skip what is, and has not changed since.",
        ),
        click.option("--dask", metavar="ADDRESS", help="Share the models out over a Dask cluster (bnfold[dask])."),
        click.option("--jobs", type=click.IntRange(1), help="Work on so many models at a time, in processes."),
    ):
        function = option(function)
    return function


def is_many(models: list[str], given: dict[str, Any]) -> bool:
    """True if a call is more than one model, one after the other, can be. Raises UsageError for a contradiction."""
    if given["jobs"] and given["dask"]:
        raise UsageError("--jobs and --dask exclude each other")
    shared = any(given[name] for name in ("jobs", "dask", "resume"))
    if (shared or len(models) > 1) and "-" in models:
        raise UsageError("standard input is no model among several", "name files")
    return shared or len(models) > 1


@contextlib.contextmanager
def executor(given: dict[str, Any]) -> Iterator[Executor | None]:
    """What the models are shared out by. Raises InconclusiveError where no cluster answers."""
    if given["dask"]:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise UsageError("--dask needs dask.distributed", "pip install 'bnfold[dask]'") from None
        try:
            client = distributed.Client(given["dask"], timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise InconclusiveError(f"--dask {given['dask']}: {cause}", "is the scheduler running there?") from None
        with client:
            yield client.get_executor(pure=False)
    elif given["jobs"]:
        from bnfold.batch.processes import Processes

        with Processes(given["jobs"]) as processes:
            yield processes
    else:
        yield None


def conclude(
    outcomes: Iterable[Outcome],
    models: list[str],
    given: dict[str, Any],
    terminal: Terminal,
    report: Callable[[Outcome], None] = lambda _: None,
) -> int:
    """Tell each outcome as it comes, then all of them as a table; the exit code."""
    done: dict[str, Outcome] = {}
    with _lines(given["json_file"]) as stream:
        for outcome in outcomes:
            done[outcome.model] = outcome
            if stream is not None:
                _write(stream, outcome.to_dict(), given["json_file"])
            if outcome.error is not None:
                echo_error(outcome.error["message"], outcome.error["hint"])
            elif sys.stderr is not None and sys.stderr.isatty() and not given["quiet"]:
                echo(f"[{len(done)}/{len(models)}] {outcome.model}", err=True)
            report(outcome)
    in_order = [done[model] for model in models if model in done]
    if not given["quiet"] and given["json_file"] != "-":
        _print_table(terminal, in_order)
    failures = [outcome.exit_code for outcome in in_order if outcome.exit_code]
    if failures:
        return failures[0]
    kept = any(outcome.result and outcome.result["summary"]["kept"] for outcome in in_order)
    return int(given["strict"] and kept)


def _print_table(terminal: Terminal, outcomes: list[Outcome]) -> None:
    """A row for each of several models, and their sum."""
    terminal.table(("model", "", "BatchNorms", "foldable", "why not the rest"), map(_outcome, outcomes))
    results = [outcome.result["summary"] for outcome in outcomes if outcome.result is not None]
    total, gone = (sum(summary[key] for summary in results) for key in ("batch_norms", "foldable"))
    skipped = sum(outcome.skipped for outcome in outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    parts = [f"{len(outcomes)} models: {gone} of {total} BatchNorms foldable"]
    parts += [f"{skipped} done before"] if skipped else []
    parts += [f"{failed} failed"] if failed else []
    terminal.line("; ".join(parts))


def _outcome(outcome: Outcome) -> list[Part]:
    if outcome.result is None:
        assert outcome.error is not None
        return [outcome.model, ("failed", "red"), "", "", outcome.error["message"]]
    result, summary = outcome.result, outcome.result["summary"]
    reasons = ", ".join(f"{code} {count}" for code, count in summary["by_reason"].items())
    counts = (str(summary["batch_norms"]), str(summary["foldable"]))
    return [outcome.model, _state(outcome, result), *counts, reasons]


def _state(outcome: Outcome, result: dict[str, Any]) -> Part:
    """What became of one of several models, in a word."""
    if outcome.skipped:
        return "done before", "dim"
    if result["command"] == "inspect":
        return "inspected"
    if result["verification"] is not None:
        verdict = result["verification"]["verdict"]
        from bnfold.report.text import VERDICTS

        return verdict, VERDICTS[verdict]
    if result["output"] is None:
        return "dry run"
    return "folded" if any(row["status"] == "folded" for row in result["batch_norms"]) else "unchanged"


@contextlib.contextmanager
def _lines(target: str | None) -> Iterator[IO[str] | None]:
    """Where JSON Lines go, each as soon as it is known."""
    if target is None:
        yield None
    elif target == "-":
        yield sys.stdout
    else:
        try:
            with Path(target).open("w", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise OutputError(f"{target}: {error.strerror or error}") from None


def _write(stream: IO[str], value: dict[str, Any], target: str) -> None:
    from bnfold.report.formats.common import dumps

    try:
        stream.write(dumps(value, line=True))
        stream.flush()
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
