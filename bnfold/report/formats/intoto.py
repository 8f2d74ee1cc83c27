"""An in-toto Statement v1 with in-toto's own predicate for test results, unsigned: signing is for others to do.

The subject is the folded model. The predicate has no place for figures, so they are annotations of the resource
descriptor that stands for bnfold, beside the one of the original: every parser of the specification accepts those.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from bnfold import __version__
from bnfold.report.formats import checks, dumps
from bnfold.report.results import Comparison, ModelInfo

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
RESULTS = {"equivalent": "PASSED", "undecided": "WARNED", "different": "FAILED"}
LISTS = {"pass": "passedTests", "undecided": "warnedTests", "fail": "failedTests"}


def render(comparison: Comparison, root: str | None = None) -> str:
    """The statement. ``root`` changes nothing: files are known by their digest, and called by their own name."""
    tests: dict[str, list[str]] = {name: [] for name in LISTS.values()}
    for check in checks(comparison.verification):
        title = check.title if check.subject == "gate" else f"{check.gate}: {check.title}"
        tests[LISTS[check.verdict]].append(title)
    predicate = {
        "result": RESULTS[comparison.verdict],
        "configuration": [_descriptor(comparison.original), _tool(comparison)],
        **tests,
    }
    return dumps(
        {
            "_type": STATEMENT,
            "subject": [_descriptor(comparison.folded)],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )


def _descriptor(model: ModelInfo) -> dict[str, Any]:
    return {"name": PurePath(model.path).name, "digest": {"sha256": model.sha256}}


def _tool(comparison: Comparison) -> dict[str, Any]:
    """What bnfold ran on, and what it found. The names' prefix keeps them from those of others."""
    found = comparison.verification.to_dict()
    return {
        "name": "bnfold",
        "uri": f"pkg:generic/bnfold@{__version__}",
        "annotations": {f"bnfold_{name}": value for name, value in found.items()},
    }
