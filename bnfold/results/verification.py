"""What verification found: one result object, whatever it is reported as."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bnfold.options import CHECKS

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
    """One check's verdict, the sentence that explains it, and its figures."""

    check: str
    verdict: Judgement
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerResult:
    """One folded layer or tensor, as one check sees it.

    The weights check gives ``max_ulp``, how far a stored tensor is from the exact one in ulps of its type; the layers
    check gives ``ratio``, the piece's error over the unavoidable one. ``max_abs`` is the largest difference.
    ``channels`` are the output channels that are off. ``node`` is the node of the folded model that it stands for.
    """

    name: str
    error_ratio: float | None
    max_abs: float | None
    max_ulp: float | None
    channels: list[int]
    check: str = "weights"
    verdict: Judgement = "pass"
    node: str | None = None


@dataclass(frozen=True)
class OutputResult:
    """One output of one run: an optimisation level, with TF32 or without.

    ``ratio`` is the error over the unavoidable error, ``max_abs``, ``max_rel`` (of the largest entry) and ``max_ulp``
    (of the output's type, at the largest entry) compare with the original, ``sensitivity`` is the smallest relative
    error of scale that this run could have seen. ``channels`` are those that are off by themselves.
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
    """What the report says of the device and of the inputs before anything has been run."""
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
        """``different`` if any check fails; ``equivalent`` if all pass, and they are enough to say so."""
        seen = {check.verdict for check in self.checks}
        if "fail" in seen:
            return "different"
        return "inconclusive" if "inconclusive" in seen or self.left_open else "equivalent"

    @property
    def left_open(self) -> str | None:
        """What the checks that were asked for say nothing about; None where they are enough for a verdict."""
        asked = {check.check for check in self.checks}
        if any(proof <= asked for proof in PROOFS):
            return None
        left = ", ".join(name for name in CHECKS if name not in asked)
        verb = "passes" if len(asked) == 1 else "pass"
        return (
            f"{', '.join(check.check for check in self.checks)} {verb}; {left} not run" if asked else f"{left} not run"
        )

    def to_dict(self) -> dict[str, Any]:
        """The ``verification`` object of the JSON contract."""
        return {"verdict": self.verdict, **asdict(self)}


def origin_of(refolded: bool, *, says: bool) -> Origin:
    """Return who made a folded model.

    ``bnfold``: folding the original again gives its very bytes. ``changed``: it ``says`` that bnfold folded it, but it
    has been changed since, or another version did. Both are judged alike, and like the folds of ``other`` tools.
    """
    return "bnfold" if refolded else "changed" if says else "other"


def versions() -> dict[str, str]:
    """What took part, for the report."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from bnfold.version import __version__

    found = {"bnfold": __version__, "python": platform.python_version()}
    for package in ("onnx", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
