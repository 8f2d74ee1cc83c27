"""Several models in one call of ``fold`` or ``inspect``: options, lines, the table, the exit code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from bnfold.cli.output import OutputParams
from bnfold.cli.params import FILE, option
from bnfold.errors import InconclusiveError, OutputError, UsageError
from bnfold.report.terminal import Part, Terminal, echo, echo_error
from bnfold.wording import counted

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
            raise UsageError("--jobs and --dask exclude each other", "leave one out")
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
    """Report each outcome as it comes; then all of them as a table, and the failures; return the exit code."""
    done: dict[str, Outcome] = {}
    with _lines(output.json_file) as stream:
        for outcome in outcomes:
            done[outcome.model] = outcome
            if stream is not None:
                _write(stream, outcome.to_dict(), str(output.json_file))
            if sys.stderr is not None and sys.stderr.isatty() and not output.quiet:
                failed = ": failed" if outcome.error is not None else ""
                echo(f"[{len(done)}/{len(models)}] {outcome.model}{failed}", err=True)
            report(outcome)
    in_order = [done[model] for model in models if model in done]
    if output.shows_report:
        _print_table(terminal, in_order)
        output.print_elapsed(terminal)
    failures = [outcome for outcome in in_order if outcome.error is not None]
    for outcome in failures:
        assert outcome.error is not None
        echo_error(_named(outcome.model, outcome.error["message"]), outcome.error["hint"])
    if failures:
        return failures[0].exit_code
    results = [outcome.result for outcome in in_order if outcome.result]
    codes = [
        strict_code(kept=bool(result["summary"]["kept"]), verdict=(result.get("verification") or {}).get("verdict"))
        for result in results
    ]
    return min(filter(None, codes), default=0) if strict else 0


def strict_code(*, kept: bool, verdict: str | None) -> int:
    """Return the exit code of a model with --strict: a BatchNorm that is kept comes first."""
    return 1 if kept else InconclusiveError.exit_code if verdict == "inconclusive" else 0


def _named(model: str, message: str) -> str:
    """Return a failure's message, which begins with the model unless it names it anyway."""
    return message if model in message else f"{model}: {message}"


def _print_table(terminal: Terminal, outcomes: list[Outcome]) -> None:
    """Print a row for each of several models, and their sum."""
    writes = any(outcome.command == "fold" for outcome in outcomes)
    heads = ("MODEL", "RESULT", "FOLDED" if writes else "FOLDABLE", "KEPT", *(("WRITTEN TO",) if writes else ()))
    terminal.table(heads, (_row(outcome, writes=writes) for outcome in outcomes))
    terminal.line(_sum(outcomes, writes=writes))


def _sum(outcomes: list[Outcome], *, writes: bool) -> str:
    """Return how many models were folded or inspected, what became of the others, and the BatchNorms of all."""
    states = Counter(_state(outcome)[0] for outcome in outcomes)
    apart = ("unchanged", "done before", "failed") if writes else ("done before", "failed")
    others = [f"{states[state]} {state}" for state in apart if states[state]]
    done = len(outcomes) - sum(states[state] for state in apart)
    summaries = [outcome.result["summary"] for outcome in outcomes if outcome.result is not None]
    total, foldable = (sum(summary[key] for summary in summaries) for key in ("batch_norms", "foldable"))
    counts = ", ".join([f"{done} of {counted(len(outcomes), 'model')}", *others])
    verb, end = ("Folded", "folded") if writes else ("Inspected", "can be folded")
    if states["dry run"]:
        verb, end = "Planned", "can be folded"
    return f"{verb} {counts}; {foldable} of {counted(total, 'BatchNorm')} {end}"


def _row(outcome: Outcome, *, writes: bool) -> list[Part]:
    result, empty = outcome.result, [""] if writes else []
    if result is None:
        return [outcome.model, _state(outcome), "", "", *empty]
    summary = result["summary"]
    reasons = ", ".join(f"{count} {code}" for code, count in summary["by_reason"].items())
    place: list[Part] = [(result.get("output") or {"path": ""})["path"]] if writes else []
    return [outcome.model, _state(outcome), f"{summary['foldable']} of {summary['batch_norms']}", reasons, *place]


def _state(outcome: Outcome) -> tuple[str, str]:
    """Return what became of one of several models, in a word, and the word's style."""
    result = outcome.result
    if result is None:
        return "failed", "red"
    if outcome.skipped:
        return "done before", "dim"
    if result["command"] == "inspect":
        return "inspected", ""
    if result["output"] is None:
        return "dry run", ""
    if not any(row["status"] == "folded" for row in result["batch_norms"]):
        return "unchanged", ""
    if result["verification"] is not None:
        verdict = result["verification"]["verdict"]
        from bnfold.report.text import VERDICTS

        return verdict, VERDICTS[verdict]
    return "folded", ""


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
