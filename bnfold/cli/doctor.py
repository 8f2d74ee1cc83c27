"""``bnfold doctor``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli import project
from bnfold.cli.options import check_json_target, common, report_stream, write_json
from bnfold.errors import BnfoldError

if TYPE_CHECKING:
    from bnfold.diagnostics import Finding

COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


@click.command("doctor", short_help="Tell what this machine can do, and what is missing for the rest.")
@common
def command(**given: Any) -> None:
    """Tell what this machine can do: versions, devices on which a model really ran, and what is missing for the rest.

    Exits with 3 if something that is installed does not work.
    """
    check_json_target(given["json_file"])
    from bnfold.diagnostics import diagnose
    from bnfold.report.terminal import Terminal

    result = diagnose()
    result.findings.append(_project())
    if not given["quiet"] and given["json_file"] != "-":
        terminal = Terminal(report_stream(given["json_file"], False), color=not given["no_color"])
        for finding in result.findings:
            terminal.line(f"{finding.subject}: ", (finding.state, COLOURS[finding.state]), f": {finding.detail}")
            if finding.remedy:
                terminal.line((f"  {finding.remedy}", "dim"))
    write_json(given["json_file"], result.to_dict())
    sys.exit(0 if result.healthy else 3)


def _project() -> Finding:
    """What [tool.bnfold] says, for whichever command."""
    from bnfold.diagnostics import Finding

    try:
        found = project.find()
        project.check(found)
    except BnfoldError as error:
        return Finding("pyproject.toml", "broken", str(error), error.hint)
    if found is None:
        return Finding("pyproject.toml", "missing", "no [tool.bnfold] in this folder or above")
    return Finding("pyproject.toml", "ok", f"{found.file}: models: {len(found.entries)}")
