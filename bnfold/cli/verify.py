"""``bnfold verify``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from bnfold.cli import project, reports
from bnfold.cli.options import FILE, check_json_target, common, progress, report_stream, write_json
from bnfold.cli.verification_options import verify_options, verifying
from bnfold.errors import BnfoldError, UsageError
from bnfold.report.terminal import echo, echo_error

EXIT_CODES = {"equivalent": 0, "different": 1, "inconclusive": 3}


@click.command("verify", short_help="Judge whether a folded model computes what the original computes.")
@click.argument("original", required=False, type=FILE)
@click.argument("folded", required=False, type=FILE)
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
        sys.exit(EXIT_CODES[_judge(first, second, given)])
    pairs = [(entry.model, entry.output or _beside(entry.model)) for entry in project.models("verify")]
    if len(pairs) > 1 and given["json_file"] not in (None, "-"):
        raise UsageError("--json takes one file for one pair of models", "use --report json=reports/{name}.json")
    for text in given["reports"]:
        if len(pairs) > 1 and "=" in text and reports.NAME not in text:
            raise UsageError(
                f"--report {text}: one file for several models", f"write {reports.NAME} where its name belongs"
            )
    names = _names([folded for _, folded in pairs])
    codes = [_code(*pair, given, name) for pair, name in zip(pairs, names, strict=True)]
    sys.exit(next((code for code in (1, 4, 5, 3) if code in codes), max(codes)))


def _names(folded: list[str]) -> list[str]:
    """A name for each model's reports: its own, or with its folders where another model has the same."""
    stems = Counter(Path(path).stem for path in folded)
    return [
        Path(path).stem if stems[Path(path).stem] == 1 else "-".join(Path(path).with_suffix("").parts).strip("-/.")
        for path in folded
    ]


def _code(original: str, folded: str, given: dict[str, Any], name: str) -> int:
    """Judge one of several pairs; the exit code. An error is told, and does not stop the others."""
    if not given["quiet"] and given["json_file"] != "-":
        echo(f"{original} → {folded}")
    try:
        return EXIT_CODES[_judge(original, folded, given, name)]
    except BnfoldError as error:
        echo_error(str(error), error.hint)
        return error.exit_code


def _judge(original: str | None, folded: str, given: dict[str, Any], name: str | None = None) -> str:
    """Judge one pair, one of several if it has a ``name``, and tell of it; the verdict."""
    from bnfold.api import verify
    from bnfold.report import report_data as story
    from bnfold.report.terminal import Terminal

    options = verify_options(given)
    wanted = reports.wanted(given["reports"], [original or folded, folded], together=True, name=name)
    with progress(given):
        result = verify(original, folded, options)
    if not given["quiet"] and given["json_file"] != "-":
        terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])
        from bnfold.report import text

        text.print_comparison(terminal, result, verbose=given["verbose"])
    write_json(given["json_file"], result.to_dict(), line=name is not None)
    reports.write(wanted, result, to_stderr=given["json_file"] == "-")
    reports.write_page(wanted, lambda: story.of_comparison(result))
    return result.verdict


def _beside(model: str) -> str:
    """Where a fold goes if nobody says."""
    path = Path(model)
    return str(path.with_name(f"{path.stem}.folded{path.suffix}"))
