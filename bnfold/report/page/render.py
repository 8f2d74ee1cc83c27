"""The report as one page of HTML: self-contained, readable without scripts, drawn by matplotlib, written by jinja2.

jinja2 escapes every text (names in models are untrusted), and the page forbids itself everything from outside.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import UsageError
from bnfold.options import AUTOMATIC
from bnfold.report.report_data import MOST_HISTOGRAMS, ReportData
from bnfold.results.folding import BatchNormRow, Inspection

if TYPE_CHECKING:
    from bnfold.planner.candidates import AffineOp
    from bnfold.planner.plan import Plan
    from bnfold.rules.reasons import Refusal

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
    from bnfold.results.model import versions
    from bnfold.rules.reasons import REASONS

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
        versions=versions() if data.comparison is None else data.comparison.verification.versions,
        latencies=list(zip(data.latencies, data.benchmark.levels, strict=True)) if data.benchmark else [],
        most_rows=plots.MOST_ROWS,
        most_weights=MOST_HISTOGRAMS,
        reasons=REASONS,
        findings=FINDINGS,
        plots=plots.all_of(data),
        kept=_kept(data.inspection),
        checks=AUTOMATIC,
    )


MOST_PICTURES = 6
"""Neighbourhoods that are drawn for one reason: a page is for reading."""


@dataclass(frozen=True)
class KeptGroup:
    """The BatchNorms that one reason keeps: how many they are, what helps, and of the first a row with its picture."""

    code: str
    count: int
    help: str
    pictures: list[tuple[BatchNormRow, Any]]


def _kept(inspection: Inspection | None) -> list[KeptGroup]:
    """Return the reasons, the most frequent first, with what is around the first BatchNorms of each."""
    from markupsafe import Markup

    from bnfold.report import drawing
    from bnfold.report.text import remedy
    from bnfold.rules.reasons import Refusal

    if inspection is None:
        return []
    rows = {(row.graph, row.output): row for row in inspection.batch_norms}
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[BatchNormRow, tuple[Plan, AffineOp, Refusal]]]] = {}
    for plan in inspection.plans:
        for op, outcome in plan.outcomes:
            row = rows.get((op.source.graph.name or "main", op.target.name))
            if isinstance(outcome, Refusal) and row is not None:
                groups.setdefault((outcome.reason, tuple(row.would_fold_with)), []).append((row, (plan, op, outcome)))
    return [
        KeptGroup(
            code,
            len(found),
            remedy(code, tried, len(found)),
            [(row, Markup(drawing.one(*drawn))) for row, drawn in found[:MOST_PICTURES]],
        )
        for (code, tried), found in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
