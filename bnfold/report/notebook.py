"""Results as a notebook shows them: small tables, with nothing in them that is not escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.results.calibration import Calibration
    from bnfold.results.folding import Comparison, Folding, Inspection

COLOURS = {
    "foldable": "#146c2e", "folded": "#146c2e", "equivalent": "#146c2e", "pass": "#146c2e",
    "kept": "#8a5300", "inconclusive": "#8a5300", "different": "#b3261e", "fail": "#b3261e",
}  # fmt: skip


def inspection(found: Inspection) -> str:
    """Every BatchNorm: where it goes, or why it stays."""
    rows = []
    for row in found.rows:
        place = f"{row.reason['code']}: {row.reason['detail']}" if row.reason else ", ".join(row.into)
        rows.append((row.name, str(row.channels or ""), row.status, place, ", ".join(row.warnings)))
    head = f"{found.model.path}: {found.foldable} of {len(found.batch_norms)} BatchNorms can go"
    return _table(head, ("BatchNorm", "channels", "", "into, or reason", "statistics"), rows)


def folding(found: Folding) -> str:
    """The verdict, and every BatchNorm."""
    nodes = found.nodes
    return _line(f"{found.verdict}; {nodes['before']} → {nodes['after']} nodes") + inspection(found.inspection)


def comparison(found: Comparison) -> str:
    """The verdict, check by check."""
    checks = [(check.check, check.verdict, check.detail) for check in found.verification.checks]
    return _table(f"{found.folded.path}: {found.verdict}", ("check", "", "why"), checks)


def calibration(found: Calibration) -> str:
    """How far the statistics of each BatchNorm moved."""
    rows = []
    for row in found.rows:
        moved = "" if row.drift is None else f"{row.drift.rms:.3g}"
        rows.append((row.name, row.status, moved, "" if row.reason is None else row.reason["detail"]))
    head = (
        f"{found.info.path}: {found.calibrated} of {len(found.rows)} BatchNorms calibrated, {found.data['rows']} rows"
    )
    return _table(head, ("BatchNorm", "", "drift (rms)", "why not"), rows)


def _line(text: str) -> str:
    return f"<p><b>{escape(text)}</b></p>"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _cell(text: str) -> str:
    colour = COLOURS.get(text)
    style = f' style="color:{colour}"' if colour else ""
    return f"<td{style}>{escape(text)}</td>"
