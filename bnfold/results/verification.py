"""What verification found: one result object, whatever it is reported as."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bnfold.io.digests import DataFiles
from bnfold.options import CHECKS
from bnfold.results import html
from bnfold.results.model import DataPair, ModelInfo, head

Judgement = Literal["pass", "fail", "inconclusive"]
Verdict = Literal["equivalent", "different", "inconclusive"]

Origin = Literal["bnfold", "changed", "other"]


PROOFS = (frozenset({"structure", "weights"}), frozenset({"outputs"}))
"""Checks that together say of two models that they are equivalent: for all inputs, or on those that were fed.

The structure alone says nothing about numbers, the weights nothing about what reads them, the layers nothing about what
lies between them.
"""


@dataclass(frozen=True)
class CheckResult:
    """One check's verdict, the sentence that explains it, and its figures.

    ``required`` False: the verdict stands where this check is inconclusive, because others have proved it.
    """

    check: str
    verdict: Judgement
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)
    required: bool = True

    @property
    def leaves_open(self) -> bool:
        """True if there is no verdict because of this check."""
        return self.required and self.verdict == "inconclusive"


@dataclass(frozen=True)
class LayerResult:
    """One folded layer or tensor, as one check sees it.

    The weights check gives ``max_ulp``, how far a stored tensor is from the exact one in ulps of its type; the layers
    check gives ``error_ratio``, the subgraph's error over the expected rounding error. ``max_abs`` is the largest
    difference. ``channels`` are the output channels that are off, ``node`` is the layer's node in the folded model,
    ``tensor`` says which of its tensors the weights check finds farthest off.
    """

    name: str
    error_ratio: float | None
    max_abs: float | None
    max_ulp: float | None
    channels: list[int]
    check: str = "weights"
    verdict: Judgement = "pass"
    node: str | None = None
    tensor: Literal["weights", "bias"] | None = None

    @property
    def title(self) -> str:
        """What a sentence calls it: the node that a user finds in the graph, ``bias`` where that is what is off."""
        if self.check == "layers":
            return self.name
        return f"{self.node or self.name}{' bias' if self.tensor == 'bias' else ''}"


@dataclass(frozen=True)
class OutputResult:
    """One output of one run: an optimisation level, with TF32 or without.

    ``error_ratio`` is the error over the expected rounding error, ``max_abs``, ``max_rel`` (of the largest entry) and
    ``max_ulp`` (of the output's type, at the largest entry) compare with the original, ``detection_limit`` is the
    smallest relative error of scale that this run could have detected. ``channels`` are those that are off by
    themselves.
    """

    name: str
    level: str
    error_ratio: float
    max_abs: float
    max_rel: float
    detection_limit: float
    max_ulp: float = 0.0
    tf32: bool = False
    kind: str | None = None
    channels: list[int] = field(default_factory=list)
    verdict: Judgement = "pass"


def nothing_ran(device: str = "cpu", seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the report says of the device and of the inputs before anything has been run."""
    used: dict[str, Any] = {"asked": device, "used": None, "nodes_on_cpu": [], "provider_options": {}}
    return used, {"source": None, "seed": seed, "samples": 0}


@dataclass(frozen=True)
class Verification:
    """Everything that ``bnfold verify`` knows at its end. ``origin``: see :func:`origin_of`."""

    checks: list[CheckResult]
    layers: list[LayerResult]
    outputs: list[OutputResult]
    device: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, str]
    origin: Origin = "other"

    @property
    def verdict(self) -> Verdict:
        """``different`` if any check fails; ``equivalent`` if all that are required pass, and are enough to say so."""
        if any(check.verdict == "fail" for check in self.checks):
            return "different"
        unsettled = any(check.leaves_open for check in self.checks) or self.left_open
        return "inconclusive" if unsettled else "equivalent"

    @property
    def left_open(self) -> str | None:
        """What the checks that were asked for say nothing about; None where they are enough for a verdict."""
        asked = {check.check for check in self.checks}
        if any(proof <= asked for proof in PROOFS):
            return None
        left = f"{', '.join(name for name in CHECKS if name not in asked)} not run"
        passed = [check.check for check in self.checks if check.verdict == "pass"]
        return f"{', '.join(passed)} {'passes' if len(passed) == 1 else 'pass'}; {left}" if passed else left

    def to_dict(self) -> dict[str, Any]:
        """Return the ``verification`` object of the JSON."""
        return {"verdict": self.verdict, "left_open": self.left_open, **asdict(self)}


def origin_of(refolded: bool, *, says: bool) -> Origin:
    """Return who made a folded model.

    ``bnfold``: folding the original again gives its very bytes. ``changed``: it ``says`` that bnfold folded it, but it
    has been changed since, or another version did. Both are judged alike, and like the folds of ``other`` tools.
    """
    return "bnfold" if refolded else "changed" if says else "other"


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
        checks = [(check.check, check.verdict, check.detail) for check in self.verification.checks]
        return html.table(f"{self.folded.path}: {self.verdict}", ("check", "", "why"), checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of the command."""
        return {
            **head("verify"),
            "original": {"path": self.original.path, "sha256": self.original.sha256},
            "folded": {"path": self.folded.path, "sha256": self.folded.sha256},
            **self.verification.to_dict(),
        }
