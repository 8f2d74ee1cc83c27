"""An in-toto Statement v1 with in-toto's own predicate for test results, unsigned: signing is for others to do.

The subjects are the folded model and the files that hold its data: weights that were exchanged are other weights. The
original and its data files are descriptors of the configuration. The predicate has no place for figures, so they are
annotations of the descriptor that stands for bnfold, beside those: every parser of the specification accepts that.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from bnfold.io.digests import DataFiles
from bnfold.report.formats.common import dumps, entries
from bnfold.results.model import ModelInfo
from bnfold.results.verification import Comparison
from bnfold.version import __version__

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
RESULTS = {"equivalent": "PASSED", "inconclusive": "WARNED", "different": "FAILED"}
LISTS = {"pass": "passedTests", "inconclusive": "warnedTests", "fail": "failedTests"}


def render(comparison: Comparison, root: str | None = None) -> str:
    """Return the statement. ``root`` changes nothing: files are known by their digest, and called by their own name.

    Raises InputError if a data file has changed since it was read.
    """
    tests: dict[str, list[str]] = {name: [] for name in LISTS.values()}
    for entry in entries(comparison.verification):
        title = entry.title if entry.subject == "check" else f"{entry.check}: {entry.title}"
        tests[LISTS[entry.verdict]].append(title)
    predicate = {
        "result": RESULTS[comparison.verdict],
        "configuration": [*_files(comparison.original, comparison.data[0]), _tool(comparison)],
        **tests,
    }
    return dumps(
        {
            "_type": STATEMENT,
            "subject": _files(comparison.folded, comparison.data[1]),
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )


def _files(model: ModelInfo, data: DataFiles) -> list[dict[str, Any]]:
    """Return a model's file by its own name, then its data files by the names that the model gives them."""
    digests = {PurePath(model.path).name: model.sha256}
    for name, digest in data.sha256().items():
        digests.setdefault(name, digest)
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()]


def _tool(comparison: Comparison) -> dict[str, Any]:
    """Return what bnfold ran on, and what it found. The names' prefix keeps them from those of others."""
    found = comparison.verification.to_dict()
    return {
        "name": "bnfold",
        "uri": f"pkg:generic/bnfold@{__version__}",
        "annotations": {f"bnfold_{name}": value for name, value in found.items()},
    }
