"""``bnfold doctor``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bnfold.cli import project
from bnfold.cli.output import OutputParams
from bnfold.cli.params import SectionedCommand, takes
from bnfold.errors import BnfoldError

if TYPE_CHECKING:
    from bnfold.diagnostics import Diagnosis, Finding

MARKS = {"ok": ("ok", "green"), "missing": ("--", "dim"), "broken": ("FAIL", "red")}


@click.command("doctor", cls=SectionedCommand)
@takes(output=OutputParams)
def command(output: OutputParams) -> None:
    """Report what this machine can do: versions, devices on which a model really ran, and what is missing for the rest.

    Exits with 3 if something that is installed does not work.
    """
    output.check_json_target()
    from bnfold.diagnostics import Diagnosis, diagnose

    result = Diagnosis([*diagnose().findings, _project()])
    if output.shows_report:
        terminal = output.terminal()
        width = 2 + max(len(finding.subject) for finding in result.findings)
        for finding in result.findings:
            mark, style = MARKS[finding.state]
            terminal.line((f"{mark:4}", style), f"  {finding.subject:{width}}{finding.detail}", hang=6 + width)
            if finding.remedy:
                terminal.line((f"{'':{6 + width}}{finding.remedy}", "dim"), hang=6 + width)
        terminal.line(_summary(result))
    output.write_json(result.to_dict())
    sys.exit(0 if result.healthy else 3)


def _summary(result: Diagnosis) -> str:
    """Return in one line whether bnfold can work here."""
    broken, missing = (sum(finding.state == state for finding in result.findings) for state in ("broken", "missing"))
    optional = f"; {missing} optional (--) not there" if missing else ""
    if broken:
        return f"{broken} of {len(result.findings)} do not work (FAIL){optional}"
    return f"Everything that is needed works{optional}"


def _project() -> Finding:
    """Return what [tool.bnfold] says, for any command."""
    from bnfold.diagnostics import Finding

    try:
        found = project.find()
        project.check(found)
    except BnfoldError as error:
        return Finding("pyproject.toml", "broken", str(error), error.hint)
    if found is None:
        return Finding("pyproject.toml", "missing", "no [tool.bnfold] in this folder or above")
    return Finding("pyproject.toml", "ok", f"{found.file}: models: {len(found.entries)}")
