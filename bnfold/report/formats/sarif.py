"""SARIF 2.1.0: a rule for each check, a result for each check that did not pass."""

from __future__ import annotations

from typing import Any

from bnfold.report.escaping import visible
from bnfold.report.formats.common import Entry, dumps, fingerprint, problems, uri
from bnfold.results.verification import Comparison, Verification
from bnfold.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

LEVELS = {"fail": "error", "inconclusive": "warning"}

RULES = {
    "structure": (
        "The folded model has the original's structure.",
        "Inputs, outputs and every node that no fold explains must be those of the original model.",
    ),
    "weights": (
        "The folded weights are the exact ones.",
        "Every folded tensor is recomputed in float64 from the original and compared in ulps of its type.",
    ),
    "layers": (
        "Every folded layer computes what its original did.",
        "Each folded layer and the nodes it replaces are run alone on the same inputs; they may differ by a small "
        "multiple of the expected rounding error.",
    ),
    "outputs": (
        "The folded model computes the original's outputs.",
        "Both models are run on the same inputs; their outputs may differ by a small multiple of the expected "
        "rounding error.",
    ),
}
"""What each check demands: in short, and in full."""

OTHER = ("The verification's other demands hold.", "A check that this version of the rules does not describe.")


def render(comparison: Comparison, root: str | None = None) -> str:
    """Return one run over the folded model: failures are errors, what is inconclusive is a warning."""
    found = problems(comparison.verification)
    rules = list(dict.fromkeys([*RULES, *(entry.check for entry in found)]))
    place = uri(comparison.folded.path, root)
    verification = comparison.verification
    run = {
        "tool": {
            "driver": {
                "name": "bnfold",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(check) for check in rules],
            }
        },
        "automationDetails": {"id": f"bnfold/{place}/"},
        "invocations": [{"executionSuccessful": True}],
        "artifacts": [
            {"location": {"uri": uri(model.path, root)}, "roles": [role], "hashes": {"sha-256": model.sha256}}
            for role, model in (("analysisTarget", comparison.folded), ("referencedOnCommandLine", comparison.original))
        ],
        "results": [_result(comparison, entry, rules.index(entry.check), root) for entry in found],
        "properties": {"verdict": comparison.verdict, **_run(verification)},
    }
    return dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _run(verification: Verification) -> dict[str, Any]:
    return {"device": verification.device, "inputs": verification.inputs, "versions": verification.versions}


def _rule(check: str) -> dict[str, Any]:
    short, full = RULES.get(check, OTHER)
    return {
        "id": visible(f"bnfold/{check}"),
        "shortDescription": {"text": short},
        "fullDescription": {"text": full},
        "defaultConfiguration": {"level": "error"},
    }


def _result(comparison: Comparison, entry: Entry, rule: int, root: str | None) -> dict[str, Any]:
    """Return one result. Its region is the first line since GitHub wants a line, and a model has none."""
    said = entry.message if entry.subject == "check" else f"{entry.title}: {entry.message}"
    mark = fingerprint(comparison, entry, root)
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": uri(comparison.folded.path, root), "index": 0},
            "region": {"startLine": 1},
        }
    }
    if entry.subject != "check":
        kind = "output" if entry.subject == "output" else "node"
        name = entry.node or entry.name
        location["logicalLocations"] = [{"name": name, "fullyQualifiedName": f"{kind} {name}", "kind": kind}]
    return {
        "ruleId": visible(f"bnfold/{entry.check}"),
        "ruleIndex": rule,
        "level": LEVELS[entry.verdict],
        "message": {"text": _plain(said) or entry.verdict},
        "locations": [location],
        "fingerprints": {"bnfold/v1": mark},
        "partialFingerprints": {"primaryLocationLineHash": f"{mark}:1"},
        "properties": {"verdict": entry.verdict, **entry.figures},
    }


def _plain(text: str) -> str:
    """Return text as SARIF's plain messages have it: braces doubled (§3.11.5), nothing like a link (§3.11.6)."""
    return visible(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")
