"""The report as one page of HTML: self-contained, readable without scripts, drawn by matplotlib, written by jinja2.

jinja2 escapes every text (names in models are untrusted), and the page forbids itself everything from outside.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bnfold.errors import UsageError
from bnfold.report.report_data import ReportData
from bnfold.results.folding import Inspection

NEEDED = ("jinja2", "matplotlib")


def check_installed() -> None:
    """Raise UsageError where what draws the page is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"an HTML report needs {' and '.join(missing)}", "pip install 'bnfold[html]'")


def render(data: ReportData) -> str:
    """Render the page. Raises UsageError where what draws it is missing."""
    check_installed()
    import jinja2

    from bnfold.report.escaping import visible
    from bnfold.report.formats.common import finite, number
    from bnfold.report.page import plots
    from bnfold.results.health import FINDINGS
    from bnfold.rules.reasons import REASONS
    from bnfold.version import __version__

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, visible=lambda text: visible(str(finite(text))))
    return environment.get_template("page.html.jinja").render(
        data=data,
        version=__version__,
        reasons=REASONS,
        findings=FINDINGS,
        plots=plots.all_of(data),
        kept=_neighbourhoods(data.inspection),
    )


MOST_PICTURES = 40
"""Neighbourhoods that are drawn: a page is for reading."""


def _neighbourhoods(inspection: Inspection | None) -> list[tuple[str, Any]]:
    """Draw what is around each kept BatchNorm."""
    from markupsafe import Markup

    from bnfold.report import drawing
    from bnfold.rules.reasons import Refusal

    kept = [
        (plan, op, outcome)
        for plan in (inspection.plans if inspection else ())
        for op, outcome in plan.outcomes
        if isinstance(outcome, Refusal) and op.form != "scale"
    ]
    return [(op.name, Markup(drawing.one(plan, op, outcome))) for plan, op, outcome in kept[:MOST_PICTURES]]
