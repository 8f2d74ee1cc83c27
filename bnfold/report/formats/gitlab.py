"""GitLab's Code Quality report: a JSON array with an entry for each check that did not pass."""

from __future__ import annotations

from bnfold.report.escaping import visible
from bnfold.report.formats.common import dumps, fingerprint, relative, troubles
from bnfold.results.folding import Comparison

SEVERITIES = {"fail": "critical", "undecided": "minor"}


def render(comparison: Comparison, root: str | None = None) -> str:
    """The array, empty if everything passed. Every entry lies in line 1: GitLab wants a line, a model has none."""
    entries = []
    for check in troubles(comparison.verification):
        said = check.message if check.subject == "gate" else f"{check.title}: {check.message}"
        entries.append(
            {
                "description": visible(f"{check.gate} {check.verdict}: {said}"),
                "check_name": visible(f"bnfold/{check.gate}"),
                "fingerprint": fingerprint(comparison, check, root),
                "severity": SEVERITIES[check.verdict],
                "location": {"path": relative(comparison.folded.path, root), "lines": {"begin": 1}},
            }
        )
    return dumps(entries)
