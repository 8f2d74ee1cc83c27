"""What may be folded: the options that ``fold`` and ``inspect`` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from bnfold.cli.params import option, shapes_of


class PlanArguments(TypedDict):
    """The arguments of :class:`bnfold.options.PlanOptions` that :class:`PlanningParams` has."""

    freeze: bool
    scales: bool
    threshold: bool
    merge: bool


@dataclass(frozen=True)
class PlanningParams:
    """What may be folded."""

    freeze_initializers: bool = option(
        "--freeze-initializers",
        is_flag=True,
        help="Make initializers that callers could override constants.",
        section="Selection",
    )
    only_batchnorm: bool = option(
        "--only-batchnorm", is_flag=True, help="Keep per-channel Mul/Add that are no BatchNorm.", section="Selection"
    )
    merge_branches: bool = option(
        "--merge-branches",
        is_flag=True,
        help="Merge parallel branches into one convolution (RepVGG).",
        section="Selection",
    )
    threshold: bool = option(
        "--threshold",
        is_flag=True,
        help="Let BatchNorm, Relu, unpadded layer become Max and layer.",
        section="Selection",
    )
    allow_unsafe_load: bool = option(
        "--allow-unsafe-load",
        is_flag=True,
        help="Run TorchScript and pickled modules that you trust to load them; requires --shape.",
        section="Formats",
    )

    def arguments(self) -> PlanArguments:
        """Return them as arguments of :class:`bnfold.options.FoldOptions`."""
        return {
            "freeze": self.freeze_initializers,
            "scales": not self.only_batchnorm,
            "threshold": self.threshold,
            "merge": self.merge_branches,
        }


def unsafe_shapes(allowed: bool, shapes: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes for models whose loading runs code; None unless that is ``allowed``. Raises UsageError."""
    return shapes_of(shapes) if allowed else None
