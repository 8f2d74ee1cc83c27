"""The report as one page of HTML: self-contained, readable without scripts, drawn by matplotlib, written by jinja2.

jinja2 escapes every text (names in models come from strangers), and the page forbids itself everything from outside.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import UsageError
from bnfold.results.folding import Comparison, Inspection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.benchmark.run import Benchmark
    from bnfold.results.calibration import Drift

NEEDED = ("jinja2", "matplotlib")


MOST_HISTOGRAMS = 12
"""Weights that are drawn before and after."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a page can tell; what there is none of leaves no trace on it.

    ``sizes`` are rows of (what, before, after). ``weights`` are the tensors that a fold changed, before and after.
    """

    title: str
    inspection: Inspection | None = None
    comparison: Comparison | None = None
    benchmark: Benchmark | None = None
    sizes: list[tuple[str, str, str]] = field(default_factory=list)
    weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)

    @property
    def drifts(self) -> dict[str, Drift]:
        """How far data were from the statistics of each BatchNorm, where that was measured."""
        rows = [] if self.inspection is None else self.inspection.rows
        return {row.name: row.drift for row in rows if row.drift is not None}


def check_installed() -> None:
    """Raise UsageError where what draws the page is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"an HTML report needs {' and '.join(missing)}", "pip install 'bnfold[html]'")


def render(story: ReportData) -> str:
    """The page. Raises UsageError where what draws it is missing."""
    check_installed()
    import jinja2

    from bnfold.calibration.health import FINDINGS
    from bnfold.report.escaping import visible
    from bnfold.report.formats.common import finite, number
    from bnfold.report.page import plots
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
        story=story,
        version=__version__,
        reasons=REASONS,
        findings=FINDINGS,
        plots=plots.all_of(story),
        kept=_neighbourhoods(story.inspection),
    )


MOST_PICTURES = 40
"""Neighbourhoods that are drawn: a page is for reading."""


def _neighbourhoods(inspection: Inspection | None) -> list[tuple[str, Any]]:
    """A picture of what is around each kept BatchNorm."""
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
