"""Small HTML tables, as notebooks show results; every text is escaped.

They are made here and not by :mod:`bnfold.report`, which imports the results: an object must know by itself what its
``_repr_html_`` is, and a table of a few texts needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

COLOURS = {
    "foldable": "#146c2e", "folded": "#146c2e", "equivalent": "#146c2e", "pass": "#146c2e",
    "kept": "#8a5300", "inconclusive": "#8a5300", "different": "#b3261e", "fail": "#b3261e",
}  # fmt: skip


def paragraph(text: str) -> str:
    """Return a paragraph in bold."""
    return f"<p><b>{escape(text)}</b></p>"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts; a cell that is a verdict or a status gets its colour."""
    cells = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _cell(text: str) -> str:
    colour = COLOURS.get(text)
    style = f' style="color:{colour}"' if colour else ""
    return f"<td{style}>{escape(text)}</td>"
