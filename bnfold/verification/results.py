"""What verification found: one result object, whatever it is reported as."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Judgement = Literal["pass", "fail", "undecided"]
Verdict = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict, the sentence that explains it, and its figures."""

    gate: str
    verdict: Judgement
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerResult:
    """One folded tensor: how far it is from the exact one, in ulps of its type, and in which channels."""

    name: str
    ratio: float | None
    max_abs: float
    max_ulp: float
    channels: list[int]


@dataclass(frozen=True)
class OutputResult:
    """One output at one optimisation level; ``ratio`` is the error over the unavoidable error."""

    name: str
    level: str
    ratio: float
    max_abs: float
    max_rel: float
    sensitivity: float


@dataclass(frozen=True)
class Verification:
    """Everything that ``bnfold verify`` knows at its end."""

    gates: list[GateResult]
    layers: list[LayerResult]
    outputs: list[OutputResult]
    device: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, str]

    @property
    def verdict(self) -> Verdict:
        """``different`` if any gate fails, else ``undecided`` if any is, else ``equivalent``."""
        return overall(gate.verdict for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """The ``verification`` object of the JSON contract."""
        return {"verdict": self.verdict, **asdict(self)}


def overall(verdicts: Iterable[Judgement]) -> Verdict:
    """The verdict of several gates together."""
    seen = set(verdicts)
    return "different" if "fail" in seen else "undecided" if "undecided" in seen or not seen else "equivalent"
