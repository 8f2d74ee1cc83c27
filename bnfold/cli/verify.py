"""``bnfold verify``."""

from __future__ import annotations

import sys
from typing import Any

import click

from bnfold.cli.options import check_json_target, common, report_stream, write_json
from bnfold.cli.verifying import verify_options, verifying

EXIT_CODES = {"equivalent": 0, "different": 1, "undecided": 3}


@click.command("verify", short_help="Judge whether a folded model computes what the original computes.")
@click.argument("original")
@click.argument("folded", required=False)
@verifying
@common
def command(original: str, folded: str | None, **given: Any) -> None:
    """Judge whether FOLDED computes what ORIGINAL computes.

    With FOLDED alone, its original is found by what 'bnfold fold' noted in it. Exits with 0 if they are
    equivalent, 1 if they differ, 3 if that can't be decided here.
    """
    from bnfold.api import verify
    from bnfold.cli import reports
    from bnfold.report.terminal import Terminal

    options = verify_options(given)
    check_json_target(given["json_file"])
    wanted = reports.wanted(given["reports"], [original, folded or original], together=True)
    result = verify(original, folded, options) if folded else verify(None, original, options)
    if not given["quiet"] and given["json_file"] != "-":
        terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])
        from bnfold.report import text

        text.print_comparison(terminal, result, verbose=given["verbose"])
    write_json(given["json_file"], result.to_dict())
    reports.write(wanted, result, to_stderr=given["json_file"] == "-")
    sys.exit(EXIT_CODES[result.verification.verdict])
