"""What ``inspect`` and ``fold`` found: one object behind the text, the JSON and whatever comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bnfold.calibration.health import Finding, findings, of_parameters
from bnfold.errors import Refused
from bnfold.io.digests import DataFiles
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.results.model import ModelInfo, Written, head
from bnfold.results.verification import CheckResult, Verification, nothing_ran, versions
from bnfold.rules.reasons import Refusal

if TYPE_CHECKING:
    from bnfold.results.calibration import Drift


DataPair = tuple[DataFiles, DataFiles]
"""The data files of an original and of its fold."""


@dataclass(frozen=True)
class BatchNormRow:
    """One affine operator and what becomes of it."""

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

    @property
    def warnings(self) -> list[str]:
        """The codes of what is odd about its statistics."""
        return [finding.code for finding in self.health]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return {
            **own,
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
        """The rows that are BatchNorms; the others are plain scale chains."""
        return [row for row in self.rows if row.form != "scale"]

    @property
    def foldable(self) -> int:
        """How many BatchNorms go."""
        return sum(row.status != "kept" for row in self.batch_norms)

    @property
    def kept(self) -> int:
        """How many BatchNorms stay."""
        return len(self.batch_norms) - self.foldable

    def _repr_html_(self) -> str:
        from bnfold.report import notebook

        return notebook.inspection(self)

    def with_drifts(self, drifts: Mapping[str, Drift], data: dict[str, Any] | None) -> Inspection:
        """The same, each row of the main graph with the drift of its input, found by the name of its output.

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
        """Counts, and how often each reason occurs."""
        reasons = Counter(row.reason["code"] for row in self.batch_norms if row.reason)
        return {
            "batch_norms": len(self.batch_norms),
            "foldable": self.foldable,
            "kept": self.kept,
            "scales": len(self.rows) - len(self.batch_norms),
            "by_reason": dict(sorted(reasons.items())),
        }

    def to_dict(self, command: str = "inspect") -> dict[str, Any]:
        """The JSON of the contract."""
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
        """The verification's verdict; ``unchanged`` where nothing was folded, ``not verified`` where nobody asked."""
        if self.verification is not None:
            return self.verification.verdict
        return "not verified" if any(row.status == "folded" for row in self.inspection.rows) else "unchanged"

    def _repr_html_(self) -> str:
        from bnfold.report import notebook

        return notebook.folding(self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the contract."""
        return {
            **self.inspection.to_dict("fold"),
            "output": None if self.output is None else self.output.to_dict(),
            "nodes": self.nodes,
            "bytes": self.bytes,
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "verification": None if self.verification is None else self.verification.to_dict(),
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Comparison:
    """What ``verify`` found, and of which two files; ``data`` are those beside them."""

    original: ModelInfo
    folded: ModelInfo
    verification: Verification
    notes: list[str] = field(default_factory=list)
    data: DataPair = field(default_factory=lambda: (DataFiles(), DataFiles()), repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """``equivalent``, ``different`` or ``inconclusive``."""
        return self.verification.verdict

    def _repr_html_(self) -> str:
        from bnfold.report import notebook

        return notebook.comparison(self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the contract."""
        return {
            **head("verify"),
            "original": {"path": self.original.path, "sha256": self.original.sha256},
            "folded": {"path": self.folded.path, "sha256": self.folded.sha256},
            **self.verification.to_dict(),
        }


def as_comparison(folding: Folding) -> Comparison:
    """A fold as the comparison that its verification was; a copy passes without one."""
    model = folding.inspection.model
    output = folding.output or Written(model.path, lambda: model.sha256)
    found = folding.verification
    if found is None:
        copied = folding.verdict == "unchanged" and folding.output is not None
        told = "nothing was folded: a copy of the original"
        checks = [CheckResult(check, "pass", told) for check in ("structure", "weights")] if copied else []
        found = Verification(checks, [], [], *nothing_ran(), versions())
    folded = replace(model, path=output.path, sha256=output.sha256)
    return Comparison(model, folded, found, folding.notes, folding.data)


def refuse_different(name: str, folding: Folding) -> None:
    """Raise Refused if the folding failed its verification."""
    if folding.verification is not None and folding.verification.verdict == "different":
        cause = next(check for check in folding.verification.checks if check.verdict == "fail")
        raise Refused(f"{name}: the {cause.check} check fails: {cause.detail}", folding)


def rows(plans: list[Plan], done: bool = False) -> list[BatchNormRow]:
    """One row per affine operator, in the order of the graphs."""
    return [_row(op, outcome, done) for planned in plans for op, outcome in planned.outcomes]


def _row(op: AffineOp, outcome: Fold | Refusal, done: bool) -> BatchNormRow:
    folds = isinstance(outcome, Fold)
    dtype = op.source.dtype
    return BatchNormRow(
        name=op.name,
        output=op.target.name,
        graph=op.source.graph.name or "main",
        form=op.form,
        channels=_channels(op),
        dtype=None if dtype is None else dtype.name,
        status=("folded" if done else "foldable") if folds else "kept",
        direction=outcome.direction if isinstance(outcome, Fold) else None,
        into=[node.name for node in outcome.into] if isinstance(outcome, Fold) else [],
        via=list(outcome.via) if isinstance(outcome, Fold) else [],
        reason={"code": outcome.reason, "detail": outcome.detail} if isinstance(outcome, Refusal) else None,
        health=_health(op),
    )


def _channels(op: AffineOp) -> int | None:
    if op.statistics is not None:
        return int(op.statistics.mean.shape[0])
    return None if op.map is None else int(op.map.gain.size)


def _health(op: AffineOp) -> list[Finding]:
    """What is odd about the statistics: often a bug of training or export, which a fold would make permanent."""
    if op.form != "BatchNormalization":
        return []
    return findings(op.nodes[0]) if op.statistics is None else of_parameters(op.statistics)
