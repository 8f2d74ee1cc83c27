"""What ``inspect`` and ``fold`` found: one object behind the text, the JSON, the notebook and the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bnfold.errors import Refused
from bnfold.io.digests import DataFiles
from bnfold.options import FLAGS
from bnfold.planner.plan import Plan
from bnfold.results.drift import Drift
from bnfold.results.health import Finding
from bnfold.results.model import DataPair, ModelInfo, Written, head, versions

if TYPE_CHECKING:
    from bnfold.results.verification import Comparison, Verification


@dataclass(frozen=True)
class BatchNormRow:
    """One affine operator and what becomes of it.

    ``would_fold_with``: the options of a plan, by their names in :class:`bnfold.options.PlanOptions`, any of which
    folds it by itself; tried, for BatchNorms that are kept.
    """

    name: str
    output: str
    graph: str
    form: str
    channels: int | None
    dtype: str | None
    status: str
    direction: str | None
    into: list[str]
    via: list[str]
    reason: dict[str, str] | None
    health: list[Finding]
    drift: Drift | None = None
    would_fold_with: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The reason that it is kept, or the layers that it is folded into."""
        return f"{self.reason['code']}: {self.reason['detail']}" if self.reason else ", ".join(self.into)

    @property
    def warnings(self) -> list[str]:
        """The codes of what is odd about its statistics."""
        return [finding.code for finding in self.health]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return {
            **own,
            "would_fold_with": [FLAGS[name] for name in self.would_fold_with],
            "warnings": self.warnings,
            "health": [{"code": finding.code, "channels": list(finding.channels)} for finding in self.health],
            "drift": None if self.drift is None else self.drift.to_dict(),
        }


_PLAIN = (
    "name", "output", "graph", "form", "channels", "dtype", "status", "direction", "into", "via", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """Every affine operator of a model. ``status`` is foldable or kept, or folded once it has been."""

    model: ModelInfo
    rows: list[BatchNormRow]
    plans: list[Plan] = field(default_factory=list, repr=False, compare=False)
    data: dict[str, Any] | None = None

    @property
    def batch_norms(self) -> list[BatchNormRow]:
        """The rows that are BatchNorms; the others are per-channel Mul/Add."""
        return [row for row in self.rows if row.form != "scale"]

    @property
    def foldable(self) -> int:
        """How many BatchNorms can be, or have been, folded."""
        return sum(row.status != "kept" for row in self.batch_norms)

    @property
    def kept(self) -> int:
        """How many BatchNorms are kept."""
        return len(self.batch_norms) - self.foldable

    def _repr_html_(self) -> str:
        rows = [
            (row.name, str(row.channels or ""), row.status, row.outcome, ", ".join(row.warnings)) for row in self.rows
        ]
        head = f"{self.model.path}: {self.foldable} of {len(self.batch_norms)} BatchNorms foldable"
        from bnfold.results import html

        return html.table(head, ("BatchNorm", "channels", "", "target, or reason", "statistics"), rows)

    def with_drifts(self, drifts: Mapping[str, Drift], data: dict[str, Any] | None) -> Inspection:
        """Return the inspection, each row of the main graph with the drift of its input, found by its output's name.

        ``data`` says what they were measured on.
        """
        rows = [
            row
            if (drift := drifts.get(row.output)) is None or row.graph != "main"
            else replace(row, drift=drift, health=row.health + drift.findings)
            for row in self.rows
        ]
        return replace(self, rows=rows, data=data)

    def summary(self) -> dict[str, Any]:
        """Return counts, and how often each reason occurs."""
        reasons = Counter(row.reason["code"] for row in self.batch_norms if row.reason)
        return {
            "batch_norms": len(self.batch_norms),
            "foldable": self.foldable,
            "kept": self.kept,
            "scales": len(self.rows) - len(self.batch_norms),
            "by_reason": dict(sorted(reasons.items())),
        }

    def to_dict(self, command: str = "inspect") -> dict[str, Any]:
        """Return the JSON of the command."""
        return {
            **head(command),
            "model": asdict(self.model),
            "batch_norms": [row.to_dict() for row in self.rows],
            "summary": self.summary(),
            **({} if self.data is None else {"data": self.data}),
        }


@dataclass(frozen=True)
class Folding:
    """A fold that has been done: what ``inspect`` knows, and what was written and proved.

    ``model`` is the folded model itself, where it came from a live object and was not written. ``data`` are the data
    files of the original and of what was written.
    """

    inspection: Inspection
    output: Written | None
    nodes: dict[str, int]
    bytes: dict[str, int]
    seconds: dict[str, float]
    verification: Verification | None = None
    model: Any = field(default=None, repr=False, compare=False)
    data: DataPair = field(default_factory=lambda: (DataFiles(), DataFiles()), repr=False, compare=False)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The verdict of the verification; ``unchanged`` if nothing was folded, ``not verified`` without one."""
        if self.verification is not None:
            return self.verification.verdict
        return "not verified" if any(row.status == "folded" for row in self.inspection.rows) else "unchanged"

    def _repr_html_(self) -> str:
        summary = f"{self.verdict}; {self.nodes['before']} → {self.nodes['after']} nodes"
        from bnfold.results import html

        return html.paragraph(summary) + self.inspection._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of the command."""
        return {
            **self.inspection.to_dict("fold"),
            "output": None if self.output is None else self.output.to_dict(),
            "nodes": self.nodes,
            "bytes": self.bytes,
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "verification": None if self.verification is None else self.verification.to_dict(),
            "notes": self.notes,
        }


def as_comparison(folding: Folding) -> Comparison:
    """Return a fold as the comparison that its verification was; a copy passes without one."""
    from bnfold.results.verification import CheckResult, Comparison, Verification, nothing_ran

    model = folding.inspection.model
    output = folding.output or Written(model.path, lambda: model.sha256)
    found = folding.verification
    if found is None:
        copied = folding.verdict == "unchanged" and folding.output is not None
        detail = "nothing was folded: a copy of the original"
        checks = [CheckResult(check, "pass", detail) for check in ("structure", "weights")] if copied else []
        found = Verification(checks, [], [], *nothing_ran(), versions())
    folded = replace(model, path=output.path, sha256=output.sha256)
    return Comparison(model, folded, found, folding.notes, folding.data)


def refuse_different(name: str, folding: Folding) -> None:
    """Raise Refused if the folding failed its verification."""
    if folding.verification is not None and folding.verification.verdict == "different":
        cause = next(check for check in folding.verification.checks if check.verdict == "fail")
        raise Refused(f"{name}: the {cause.check} check fails: {cause.detail}", folding)
