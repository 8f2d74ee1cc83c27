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
    from bnfold.diagnostics import Finding

COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


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
        for finding in result.findings:
            terminal.line(f"{finding.subject}: ", (finding.state, COLOURS[finding.state]), f": {finding.detail}")
            if finding.remedy:
                terminal.line((f"  {finding.remedy}", "dim"))
    output.write_json(result.to_dict())
    sys.exit(0 if result.healthy else 3)


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
