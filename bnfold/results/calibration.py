"""What a calibration found and wrote: one object behind the text, the JSON and the plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnfold.calibration.health import DRIFT, Finding, of_parameters
from bnfold.calibration.layers import Layer
from bnfold.calibration.moments import distance
from bnfold.numerics.batchnorm import Array, BatchNorm, Statistics
from bnfold.results.model import ModelInfo, Written, head


@dataclass(frozen=True, eq=False)
class Drift:
    """How far data lie from a layer's statistics: ``distance`` per channel, in stored standard deviations.

    ``count`` is how many values each channel's statistics come from.
    """

    distance: Array
    count: int

    @classmethod
    def between(cls, layer: Layer, found: Statistics) -> Drift:
        """From what a layer holds to what the data have; a layer per position by its positions too."""
        bn = layer.stored
        return cls(distance((bn.mean, bn.var), found, bn.epsilon).reshape(-1), found.count)

    @property
    def rms(self) -> float:
        """Root of the mean square over the channels."""
        with np.errstate(over="ignore"):
            return float(np.sqrt(np.mean(self.distance**2))) if self.distance.size else 0.0

    @property
    def findings(self) -> list[Finding]:
        """``drift``, with the channels that are off, if the layer as a whole is."""
        channels = tuple(map(int, np.flatnonzero(self.distance > DRIFT)))
        return [Finding("drift", channels)] if self.rms > DRIFT else []

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        worst = int(np.argmax(self.distance)) if self.distance.size else None
        return {
            "rms": self.rms,
            "max": None if worst is None else float(self.distance[worst]),
            "channel": worst,
            "count": self.count,
            "distance": [float(f"{x:.6g}") for x in self.distance],
        }


@dataclass(frozen=True, eq=False)
class CalibratedRow:
    """One BatchNormalization: ``status`` is ``calibrated``, or ``left`` for a reason."""

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
        """As JSON."""
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
        from bnfold.report import notebook

        return notebook.calibration(self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the contract."""
        from dataclasses import asdict

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
                "left": len(self.rows) - self.calibrated,
            },
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }
