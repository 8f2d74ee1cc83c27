"""How far data lie from the statistics that a layer holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold.numerics.batchnorm import Array
from bnfold.results.health import DRIFT, Finding


@dataclass(frozen=True, eq=False)
class Drift:
    """How far data lie from a layer's statistics: ``distance`` per channel, in stored standard deviations.

    ``count`` is how many values each channel's statistics come from.
    """

    distance: Array
    count: int

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
        """Return it as JSON."""
        worst = int(np.argmax(self.distance)) if self.distance.size else None
        return {
            "rms": self.rms,
            "max": None if worst is None else float(self.distance[worst]),
            "channel": worst,
            "count": self.count,
            "distance": [float(f"{x:.6g}") for x in self.distance],
        }
