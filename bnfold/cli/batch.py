"""Several models in one call of ``fold`` or ``inspect``: options, lines, the table, the exit code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from bnfold.cli.output import OutputParams
from bnfold.cli.params import FILE, option
from bnfold.errors import InconclusiveError, OutputError, UsageError
from bnfold.report.terminal import Part, Terminal, echo, echo_error

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from bnfold.batch.records import Outcome


@dataclass(frozen=True)
class BatchParams:
    """``--jobs``, ``--dask``, ``--resume``: what only several models need."""

    jobs: int | None = option(
        "--jobs", type=click.IntRange(1), help="Work on so many models at a time, in processes.", section="Many models"
    )
    dask: str | None = option(
        "--dask",
        metavar="ADDRESS",
        help="Share the models out over a Dask cluster (bnfold[dask]).",
        section="Many models",
    )
    resume: str | None = option(
        "--resume",
        metavar="FILE",
        type=FILE,
        help="Remember in FILE what is done; skip what is, and has not changed since.",
        section="Many models",
    )

    def is_batch(self, models: list[str]) -> bool:
        """Return True if a call has several models, or asks for what several need. Raises UsageError."""
        if self.jobs and self.dask:
            raise UsageError("--jobs and --dask exclude each other")
        asked = bool(self.jobs or self.dask or self.resume)
        if (asked or len(models) > 1) and "-" in models:
            raise UsageError("standard input is no model among several", "name files")
        return asked or len(models) > 1


@contextlib.contextmanager
def executor(params: BatchParams) -> Iterator[Executor | None]:
    """Give what the models are distributed by. Raises InconclusiveError where no cluster answers."""
    if params.dask:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise UsageError("--dask needs dask.distributed", "pip install 'bnfold[dask]'") from None
        try:
            client = distributed.Client(params.dask, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise InconclusiveError(f"--dask {params.dask}: {cause}", "is the scheduler running there?") from None
        with client:
            yield client.get_executor(pure=False)
    elif params.jobs:
        from bnfold.batch.processes import Processes

        with Processes(params.jobs) as processes:
            yield processes
    else:
        yield None


def conclude(
    outcomes: Iterable[Outcome],
    models: list[str],
    output: OutputParams,
    terminal: Terminal,
    *,
    strict: bool,
    report: Callable[[Outcome], None] = lambda _: None,
) -> int:
    """Report each outcome as it comes, then all of them as a table; return the exit code."""
    done: dict[str, Outcome] = {}
    with _lines(output.json_file) as stream:
        for outcome in outcomes:
            done[outcome.model] = outcome
            if stream is not None:
                _write(stream, outcome.to_dict(), str(output.json_file))
            if outcome.error is not None:
                echo_error(outcome.error["message"], outcome.error["hint"])
            elif sys.stderr is not None and sys.stderr.isatty() and not output.quiet:
                echo(f"[{len(done)}/{len(models)}] {outcome.model}", err=True)
            report(outcome)
    in_order = [done[model] for model in models if model in done]
    if output.shows_report:
        _print_table(terminal, in_order)
    failures = [outcome.exit_code for outcome in in_order if outcome.exit_code]
    if failures:
        return failures[0]
    kept = any(outcome.result and outcome.result["summary"]["kept"] for outcome in in_order)
    return int(strict and kept)


def _print_table(terminal: Terminal, outcomes: list[Outcome]) -> None:
    """Print a row for each of several models, and their sum."""
    terminal.table(("model", "", "BatchNorms", "foldable", "why not the rest"), map(_row, outcomes))
    results = [outcome.result["summary"] for outcome in outcomes if outcome.result is not None]
    total, foldable = (sum(summary[key] for summary in results) for key in ("batch_norms", "foldable"))
    skipped = sum(outcome.skipped for outcome in outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    parts = [f"{len(outcomes)} models: {foldable} of {total} BatchNorms foldable"]
    parts += [f"{skipped} done before"] if skipped else []
    parts += [f"{failed} failed"] if failed else []
    terminal.line("; ".join(parts))


def _row(outcome: Outcome) -> list[Part]:
    if outcome.result is None:
        assert outcome.error is not None
        return [outcome.model, ("failed", "red"), "", "", outcome.error["message"]]
    result, summary = outcome.result, outcome.result["summary"]
    reasons = ", ".join(f"{code} {count}" for code, count in summary["by_reason"].items())
    counts = (str(summary["batch_norms"]), str(summary["foldable"]))
    return [outcome.model, _state(outcome, result), *counts, reasons]


def _state(outcome: Outcome, result: dict[str, Any]) -> Part:
    """Return what became of one of several models, in a word."""
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
    """Open the place where JSON Lines go, each as soon as it is known."""
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
