"""What a calibration found and wrote: one object behind the text, the JSON and the plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bnfold.numerics.batchnorm import BatchNorm
from bnfold.results import html
from bnfold.results.drift import Drift
from bnfold.results.health import Finding, of_parameters
from bnfold.results.model import ModelInfo, Written, head


@dataclass(frozen=True, eq=False)
class CalibratedRow:
    """One BatchNormalization: ``status`` is ``calibrated``, or ``kept`` for a reason."""

    name: str
    output: str
    graph: str
    status: str
    channels: int | None = None
    drift: Drift | None = None
    after: BatchNorm | None = None
    reason: dict[str, str] | None = None

    @property
    def findings(self) -> list[Finding]:
        """What is odd about the new statistics."""
        return [] if self.after is None else of_parameters(self.after)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "output": self.output,
            "graph": self.graph,
            "status": self.status,
            "channels": self.channels,
            "drift": None if self.drift is None else self.drift.to_dict(),
            "reason": self.reason,
            "warnings": [finding.code for finding in self.findings],
        }


@dataclass(frozen=True)
class Calibration:
    """A calibration that has been done. ``model`` is the calibrated model, where it was not written."""

    info: ModelInfo
    rows: list[CalibratedRow]
    mode: str
    momentum: float | None
    convention: str
    data: dict[str, Any]
    output: Written | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    model: Any = field(default=None, repr=False, compare=False)

    @property
    def calibrated(self) -> int:
        """How many BatchNorms have new statistics."""
        return sum(row.status == "calibrated" for row in self.rows)

    def _repr_html_(self) -> str:
        rows = []
        for row in self.rows:
            moved = "" if row.drift is None else f"{row.drift.rms:.3g}"
            rows.append((row.name, row.status, moved, "" if row.reason is None else row.reason["detail"]))
        title = (
            f"{self.info.path}: {self.calibrated} of {len(self.rows)} BatchNorms calibrated, {self.data['rows']} rows"
        )
        return html.table(title, ("BatchNorm", "", "drift (rms)", "why not"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of the command."""
        return {
            **head("calibrate"),
            "model": asdict(self.info),
            "output": None if self.output is None else self.output.to_dict(),
            "mode": self.mode,
            "momentum": self.momentum,
            "convention": self.convention,
            "data": self.data,
            "batch_norms": [row.to_dict() for row in self.rows],
            "summary": {
                "batch_norms": len(self.rows),
                "calibrated": self.calibrated,
                "kept": len(self.rows) - self.calibrated,
            },
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }
