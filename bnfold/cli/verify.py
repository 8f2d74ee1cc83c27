"""``bnfold verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bnfold.cli import project
from bnfold.cli.options import check_json_target, common, complete_file, progress, report_stream, write_json
from bnfold.cli.verifying import verify_options, verifying
from bnfold.errors import BnfoldError, UsageError

EXIT_CODES = {"equivalent": 0, "different": 1, "undecided": 3}

NAME = "{name}"
"""Stands for the folded model's name in the file of a report."""


@click.command("verify", short_help="Judge whether a folded model computes what the original computes.")
@click.argument("original", required=False, shell_complete=complete_file)
@click.argument("folded", required=False, shell_complete=complete_file)
@verifying
@common
def command(original: str | None, folded: str | None, **given: Any) -> None:
    """Judge whether FOLDED computes what ORIGINAL computes.

    With FOLDED alone, its original is found by what 'bnfold fold' noted in it. Without any model, all pairs of
    [tool.bnfold] in pyproject.toml are judged. Exits with 0 if they are equivalent, 1 if they differ, 3 if that
    can't be decided here.
    """
    check_json_target(given["json_file"])
    if original is not None:
        first, second = (original, folded) if folded else (None, original)
        sys.exit(EXIT_CODES[_judge(first, second, given, many=False)])
    pairs = [(entry.model, entry.output or _beside(entry.model)) for entry in project.models("verify")]
    if len(pairs) > 1 and given["json_file"] not in (None, "-"):
        raise UsageError("--json takes one file for one pair of models", "use --report json=reports/{name}.json")
    for text in given["reports"]:
        if len(pairs) > 1 and "=" in text and NAME not in text:
            raise UsageError(f"--report {text}: one file for several models", f"write {NAME} where its name belongs")
    codes = [_code(first, second, given) for first, second in pairs]
    sys.exit(next((code for code in (1, 4, 5, 3) if code in codes), max(codes)))


def _code(original: str, folded: str, given: dict[str, Any]) -> int:
    """Judge one of several pairs; the exit code. An error is told, and does not stop the others."""
    if not given["quiet"] and given["json_file"] != "-":
        click.echo(f"{original} → {folded}")
    try:
        return EXIT_CODES[_judge(original, folded, given, many=True)]
    except BnfoldError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        click.echo(f"error: {error}{hint}", err=True)
        return error.exit_code


def _judge(original: str | None, folded: str, given: dict[str, Any], *, many: bool) -> str:
    """Judge one pair and tell of it; the verdict."""
    from bnfold.api import verify
    from bnfold.cli import reports, story
    from bnfold.report.terminal import Terminal

    options = verify_options(given)
    texts = tuple(text.replace(NAME, Path(folded).stem) for text in given["reports"])
    wanted = reports.wanted(texts, [original or folded, folded], together=True)
    with progress(given):
        result = verify(original, folded, options)
    if not given["quiet"] and given["json_file"] != "-":
        terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])
        from bnfold.report import text

        text.print_comparison(terminal, result, verbose=given["verbose"])
    write_json(given["json_file"], result.to_dict(), line=many)
    reports.write(wanted, result, to_stderr=given["json_file"] == "-")
    reports.write_page(wanted, lambda: story.of_comparison(result))
    return result.verdict


def _beside(model: str) -> str:
    """Where a fold goes if nobody says."""
    path = Path(model)
    return str(path.with_name(f"{path.stem}.folded{path.suffix}"))
