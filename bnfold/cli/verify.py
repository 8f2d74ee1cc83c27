"""``bnfold verify``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click

from bnfold.cli import project, report_values, reports
from bnfold.cli.output import OutputParams
from bnfold.cli.params import FILE, SectionedCommand, takes
from bnfold.cli.verification_options import VerificationParams
from bnfold.errors import BnfoldError, UsageError
from bnfold.report.terminal import echo, echo_error

EXIT_CODES = {"equivalent": 0, "different": 1, "inconclusive": 3}


@click.command("verify", cls=SectionedCommand)
@click.argument("original", required=False, type=FILE)
@click.argument("folded", required=False, type=FILE)
@takes(verification=VerificationParams, output=OutputParams)
def command(original: str | None, folded: str | None, verification: VerificationParams, output: OutputParams) -> None:
    """Judge whether FOLDED computes what ORIGINAL computes.

    With FOLDED alone, its original is found by what 'bnfold fold' recorded in it. Without any model, all pairs of
    [tool.bnfold] in pyproject.toml are judged. Exits with 0 if they are equivalent, 1 if they differ, 3 if that
    can't be decided here.
    """
    output.check_json_target()
    if original is not None:
        first, second = (original, folded) if folded else (None, original)
        verdict = _judge(first, second, verification, output)
        output.print_elapsed(output.terminal())
        sys.exit(EXIT_CODES[verdict])
    pairs = [(entry.model, entry.output or _beside(entry.model)) for entry in project.models("verify")]
    if len(pairs) > 1 and output.json_file not in (None, "-"):
        raise UsageError("--json takes one file for one pair of models", "use --report json=reports/{name}.json")
    for text in verification.reports:
        if len(pairs) > 1 and "=" in text and reports.NAME not in text:
            raise UsageError(
                f"--report {text}: one file for several models", f"write {reports.NAME} where its name belongs"
            )
    names = _names([folded for _, folded in pairs])
    codes = [_code(*pair, verification, output, name) for pair, name in zip(pairs, names, strict=True)]
    output.print_elapsed(output.terminal())
    sys.exit(next((code for code in (1, 4, 5, 3) if code in codes), max(codes)))


def _names(folded: list[str]) -> list[str]:
    """Return a name for each model's reports: its own, or with its folders where another model has the same."""
    stems = Counter(Path(path).stem for path in folded)
    return [
        Path(path).stem if stems[Path(path).stem] == 1 else "-".join(Path(path).with_suffix("").parts).strip("-/.")
        for path in folded
    ]


def _code(original: str, folded: str, verification: VerificationParams, output: OutputParams, name: str) -> int:
    """Judge one of several pairs and return the exit code. An error is reported, and does not stop the others."""
    if output.shows_report:
        echo(f"{original} → {folded}")
    try:
        return EXIT_CODES[_judge(original, folded, verification, output, name)]
    except BnfoldError as error:
        echo_error(str(error), error.hint)
        return error.exit_code


def _judge(
    original: str | None,
    folded: str,
    verification: VerificationParams,
    output: OutputParams,
    name: str | None = None,
) -> str:
    """Judge one pair, one of several if it has a ``name``, report it, and return the verdict."""
    from bnfold.api import verify

    options = verification.options()
    wanted = reports.wanted(verification.reports, [original or folded, folded], together=True, name=name)
    with output.progress():
        result = verify(original, folded, options)
    if output.shows_report:
        from bnfold.report import text

        text.print_comparison(output.terminal(), result, verbose=output.verbose)
    output.write_json(result.to_dict(), line=name is not None)
    reports.write(wanted, result, to_stderr=output.json_file == "-")
    reports.write_page(wanted, lambda: report_values.of_comparison(result))
    return result.verdict


def _beside(model: str) -> str:
    """Return where a fold goes by default."""
    path = Path(model)
    return str(path.with_name(f"{path.stem}.folded{path.suffix}"))
