"""GitLab's Code Quality report: a JSON array with an entry for each check that did not pass."""

from __future__ import annotations

from bnfold.report.escaping import visible
from bnfold.report.formats.common import dumps, fingerprint, problems, relative
from bnfold.results.verification import Comparison

SEVERITIES = {"fail": "critical", "inconclusive": "minor"}


def render(comparison: Comparison, root: str | None = None) -> str:
    """Return the array, empty if everything passed. Every entry lies in line 1: GitLab wants one, a model has none."""
    entries = []
    for entry in problems(comparison.verification):
        said = entry.message if entry.subject == "check" else f"{entry.title}: {entry.message}"
        entries.append(
            {
                "description": visible(f"{entry.check} {entry.verdict}: {said}"),
                "check_name": visible(f"bnfold/{entry.check}"),
                "fingerprint": fingerprint(comparison, entry, root),
                "severity": SEVERITIES[entry.verdict],
                "location": {"path": relative(comparison.folded.path, root), "lines": {"begin": 1}},
            }
        )
    return dumps(entries)
