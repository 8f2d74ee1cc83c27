"""What a benchmark measured: the times of both models at each optimisation level, and what may be concluded."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnfold.results.model import ModelInfo, head, versions

CONFIDENCE = 0.95
"""What an interval must have before anything is concluded from it."""

LEAST = 0.02
"""How far from 1 an interval must stay for a difference: two sessions of one model in a process may differ by less."""

ALIKE = 0.1
"""How far from 1 an interval may reach where both models are said to be the same. Less than a tenth is what another
machine, another release of onnxruntime or another input size changes anyhow."""

HINT = f"these runs show neither a difference nor that there is none of {ALIKE:.0%}: more --runs, or a quieter machine"
"""What to do about a level that is inconclusive."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every run of a model, in the order of the rounds."""

    milliseconds: list[float]

    @property
    def median(self) -> float:
        """Of all runs."""
        return statistics.median(self.milliseconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, in milliseconds."""
        low, high = np.percentile(self.milliseconds, [25, 75])
        return float(high - low) / 2


@dataclass(frozen=True)
class Level:
    """Both models at one optimisation level. ``ratio`` is the median of folded over original of the same round,
    ``low`` and ``high`` an interval that holds the true median with a probability of ``confidence``.
    """

    level: str
    original: Timing
    folded: Timing
    ratio: float
    low: float
    high: float
    confidence: float = CONFIDENCE

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where the interval is clear of 1, ``same`` where it excludes what matters.

        Otherwise, and with too few runs for an interval to mean anything, ``inconclusive``.
        """
        if self.confidence < CONFIDENCE:
            return "inconclusive"
        if self.high < 1 - LEAST or self.low > 1 + LEAST:
            return "faster" if self.high < 1 else "slower"
        return "same" if self.low >= 1 - ALIKE and self.high <= 1 + ALIKE else "inconclusive"

    @property
    def conclusion(self) -> str:
        """The verdict in words: ``8% faster``, which is 8% less time."""
        if self.verdict in ("faster", "slower"):
            return f"{abs(1 - self.ratio):.0%} {self.verdict}"
        return f"no significant difference (under {ALIKE:.0%})" if self.verdict == "same" else self.verdict

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        timings = {
            name: {"median": timing.median, "spread": timing.spread, "runs": timing.milliseconds}
            for name, timing in (("original", self.original), ("folded", self.folded))
        }
        ratio = {"median": self.ratio, "low": self.low, "high": self.high, "confidence": self.confidence}
        hint = {"hint": HINT} if self.verdict == "inconclusive" else {}
        return {
            "level": self.level,
            **timings,
            "ratio": ratio,
            "verdict": self.verdict,
            "conclusion": self.conclusion,
            **hint,
        }


@dataclass(frozen=True)
class Benchmark:
    """What was measured: both models, their nodes and bytes (with external data), and the times by level."""

    original: ModelInfo
    folded: ModelInfo
    nodes: dict[str, int]
    bytes: dict[str, int]
    levels: list[Level]
    device: str
    inputs: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``bench``."""
        return {
            **head("bench"),
            "original": asdict(self.original),
            "folded": asdict(self.folded),
            "nodes": self.nodes,
            "bytes": self.bytes,
            "device": self.device,
            "inputs": self.inputs,
            "levels": [level.to_dict() for level in self.levels],
            "versions": versions(),
        }
