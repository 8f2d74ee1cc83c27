"""The structure check: every value of the folded model that is not a fold is the original's.

The proof rests on the alignment (:mod:`bnfold.verification.equivalence.alignment`), which reads both models as
mathematics and depends neither on the planner nor on the names inside the graph. That the interface is the same is
checked before, by the frontend.
"""

from __future__ import annotations

from bnfold.results.verification import CheckResult
from bnfold.verification.equivalence.findings import Alignment
from bnfold.wording import counted


def check_graph(found: Alignment | str) -> CheckResult:
    """Judge the graphs of two models of one interface by their mismatches; ``found`` says why if they can't be aligned.

    Attributes that differ are wrong; an operator that the original has nothing of is inconclusive.
    """
    if isinstance(found, str):
        return CheckResult("structure", "inconclusive", found)
    kinds = [mismatch.kind for mismatch in found.mismatches]
    figures = {
        "nodes": len(found.folded.graphs.scopes[0].nodes),
        "unchanged": sum(node in found.folded.untouched for node in found.folded.graphs.scopes[0].nodes),
        "mismatches": len(kinds) - kinds.count("numbers"),
    }
    for mismatch in found.mismatches:
        if mismatch.kind == "attributes":
            counterpart = (
                ""
                if mismatch.counterpart is None
                else f" than {mismatch.counterpart.op} {mismatch.counterpart.name!r} of the original"
            )
            detail = f"{mismatch.name} has other attributes{counterpart}"
            return CheckResult("structure", "fail", detail, figures)
    for mismatch in found.mismatches:
        if mismatch.kind == "unknown":
            detail = f"{mismatch.name} computes a value that the original does not"
            return CheckResult("structure", "inconclusive", detail, figures)
    wrong = [name for name, channels in found.wrong_outputs.items() if channels is None and not kinds]
    if wrong:
        return CheckResult("structure", "fail", f"output {wrong[0]!r} is computed by other operators", figures)
    unchanged, nodes = figures["unchanged"], figures["nodes"]
    others = f", {len(kinds)} with other numbers" if kinds else ""
    detail = f"inputs and outputs match; {unchanged} of {counted(nodes, 'node')} unchanged{others}"
    return CheckResult("structure", "pass", detail, figures)
