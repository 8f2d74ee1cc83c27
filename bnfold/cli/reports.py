"""``--report KIND[=FILE]``: the result as other programs and HTML pages take it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnfold.cli.files import same_file, write_text
from bnfold.errors import OutputError, UsageError
from bnfold.report.formats.registry import FORMATS, render

if TYPE_CHECKING:
    from bnfold.report.report_data import ReportData
    from bnfold.results.verification import Comparison

NAME = "{name}"
"""Stands for a model's name in the file of a report."""

HTML = "html"
"""A page for people, which shows more than the verification (:mod:`bnfold.report.page.render`)."""

WITH_FILE = (HTML, *(kind for kind, form in FORMATS.items() if form.start))
STARTS = ("<", *(form.start for form in FORMATS.values() if form.start))
"""What reports begin with: an existing file that begins otherwise is never replaced."""

HELP = f"{', '.join(f'{kind}=F' for kind in WITH_FILE)}, or github (annotations and step summary)."


@dataclass(frozen=True)
class Report:
    """One report to write; a format that is printed has no file."""

    kind: str
    path: Path | None


def wanted(
    texts: tuple[str, ...], models: list[str], *, together: bool = False, name: str | None = None
) -> list[Report]:
    """Return what the options ask for, checked before any work is done. Raises UsageError, OutputError.

    ``together``: the models are one comparison. ``name`` is what ``{name}`` stands for; by default the last model's.
    """
    if not texts:
        return []
    known = (*FORMATS, HTML)
    found: list[Report] = []
    for text in texts:
        if NAME in text and (together or len(models) == 1):
            text = text.replace(NAME, name or Path(models[-1]).stem)
        kind, _, file = text.partition("=")
        if kind not in known:
            near = get_close_matches(kind, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"--report {text}: no such report", hint)
        if bool(file) != (kind in WITH_FILE):
            form = f"{kind} takes no file" if file else f"write {kind}=FILE"
            raise UsageError(f"--report {text}: {form}", HELP)
        if kind == HTML:
            from bnfold.report.page.render import check_installed

            check_installed()
        if file == "-":
            raise UsageError(f"--report {text}: takes a file", "--json - writes the JSON to standard output")
        if file and len(models) > 1 and not together:
            raise UsageError(f"--report {text}: one file for several models", "fold or verify them one by one")
        found.append(Report(kind, _checked(Path(file), models) if file else None))
    files = [str(report.path) for report in found if report.path is not None]
    if len(set(files)) < len(files):
        raise UsageError("two reports would go to one file", "name another for one of them")
    return found


def _checked(path: Path, models: list[str]) -> Path:
    """Return a place that costs the user nothing: not a model, not a folder. Raises UsageError, OutputError."""
    try:
        if any(same_file(str(path), model) for model in models):
            raise UsageError(f"--report: {path} is a model", "name another file")
        if path.exists() and not path.is_file():
            raise UsageError(f"--report: {path} is not a regular file", "name another")
        if path.exists() and not _may_be_a_report(path):
            raise UsageError(f"--report: {path} exists and is no report", "name another file")
        if not next(parent for parent in path.absolute().parents if parent.exists()).is_dir():
            raise OutputError(f"{path}: there is a file where its folder would be")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    return path


def _may_be_a_report(path: Path) -> bool:
    """Return True for a text that begins as reports do: not for weights, data or models of any kind."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        text = head.decode("utf-8").lstrip()
    except UnicodeDecodeError as error:
        text = "" if error.start < len(head) - 4 else head[: error.start].decode("utf-8").lstrip()
        return text.startswith(STARTS)
    return "\0" not in text and (not text or text.startswith(STARTS))


def only_html(texts: tuple[str, ...], models: list[str]) -> list[Report]:
    """Return the reports of a command without a verdict, which can only write pages. Raises UsageError."""
    found = wanted(texts, models)
    for report in found:
        if report.kind != HTML:
            raise UsageError(f"--report {report.kind}: there is no verdict to report", "fold and verify have one")
    return found


def write_page(reports: list[Report], collect: Callable[[], ReportData]) -> None:
    """Write the pages among the reports; what they show is collected if there are any. Raises OutputError."""
    for report in reports:
        if report.kind == HTML and report.path is not None:
            from bnfold.report.page import render as page

            _write(report.path, page.render(collect()))


def write(reports: list[Report], comparison: Comparison, *, to_stderr: bool) -> None:
    """Write every report but the pages. Raises OutputError."""
    from bnfold.report.formats import github

    for report in reports:
        if report.kind == HTML:
            continue
        text = render(report.kind, comparison, str(Path.cwd()))
        if report.path is not None:
            _write(report.path, text)
            continue
        click.echo(text, nl=False, err=to_stderr)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            _write(Path(summary), github.step_summary(comparison, str(Path.cwd())), append=True)


def _write(path: Path, text: str, *, append: bool = False) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    write_text(path, text, append=append)
