"""Everything that the layers and outputs checks judge, whatever frontend has run the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.measurement.decisions import Decided
from bnfold.verification.measurement.quantized_steps import QuantizedSteps
from bnfold.verification.measurement.subgraph_errors import SubgraphErrors
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import SampleSet
from bnfold.verification.runtime.runner import Run, RunFailed

Outputs = list[dict[str, NDArray[Any]]]
"""Per sample, the outputs by name."""


@dataclass(frozen=True)
class ReferenceSpec:
    """What the proofs have found about the folded model, and so how its errors are to be measured.

    ``slack`` is how many ulps a folded channel's scale may be off, for a fold that was computed in the storage type;
    ``exact`` says that the folded weights are proved to be the exact ones, rounded once: the folded model itself is
    then the correctly rounded fold. ``k`` replaces the limits of the error ratio.
    """

    slack: float = 0.0
    exact: bool = False
    k: float | None = None


@dataclass(frozen=True)
class Reference:
    """The original in float64, and its correctly rounded fold there (None where there is none).

    Where nothing could be run in float64, both are estimates, and ``fallback_reason`` says why.
    """

    outputs: Outputs = field(default_factory=list)
    correctly_rounded: Outputs | None = None
    fallback_reason: str | None = None


@dataclass(frozen=True)
class SubgraphRuns:
    """The errors of each folded subgraph that was run, by name, or why none could be."""

    errors: Mapping[str, SubgraphErrors] = field(default_factory=dict)
    failure: str | None = None


class FurtherRuns(Protocol):
    """Runs that cost time, and are made only where the first ones don't pass. All raise RunFailed."""

    def again(self, seeds: list[int], share: float) -> list[list[Outputs]]:
        """Return the original's outputs for each seed in each mode, a share of its numbers and inputs moved by an ulp.

        Its rounding errors are then others, of the same size.
        """

    def decided(self, original: Run, folded: Run) -> list[Decided | None]:
        """Return for each mode the float64 runs that decide as both models did in these runs.

        None where nothing is decided or it can't be said.
        """

    def accumulated(self) -> Outputs | None:
        """Return the correctly rounded fold's outputs in float64 with the errors of sums that start at a bias.

        Of each linear operator; None where there is no such fold.
        """


@dataclass(frozen=True)
class Measured:
    """What was fed to both models, in which modes, and what came out. ``folded`` is None where it was not asked for.

    ``slack``: see :class:`ReferenceSpec`. ``narrow_types`` gives the types of outputs that are held in fewer bits than
    the arrays here. ``perturbed`` runs the original with its numbers moved by an ulp, which shows what rounding may do
    to its outputs; it raises RunFailed. ``further`` makes more runs. ``versions`` are those of packages that took part.
    ``random`` names the outputs that depend on random numbers, others in each run. ``quantized`` compares quantized
    tensors in steps of their scale (None: it holds none); it raises RunFailed.
    """

    fed: SampleSet
    modes: list[RunMode]
    original: Run
    folded: Run | RunFailed | None
    reference: Reference
    subgraphs: SubgraphRuns
    perturbed: Callable[[], Outputs]
    further: FurtherRuns
    slack: float = 0.0
    narrow_types: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    random: frozenset[str] = frozenset()
    quantized: Callable[[], QuantizedSteps | None] | None = None
