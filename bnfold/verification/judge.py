"""Judge whether a folded model computes what the original computes: four checks, cheapest first.

``structure`` and ``weights`` prove it from the files, for all inputs; ``layers`` and ``outputs`` run both models and
compare their errors with the rounding errors that are expected. What differs between kinds of models (how interfaces
compare, how graphs are read, how models are run) is asked of a :class:`Comparison`, which a frontend gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bnfold.errors import InconclusiveError, UsageError
from bnfold.options import VerifyOptions
from bnfold.results.model import versions
from bnfold.results.verification import (
    CheckResult,
    LayerResult,
    OutputResult,
    Verification,
    nothing_ran,
    origin_of,
)
from bnfold.verification.checks.layers import check_layers
from bnfold.verification.checks.random_outputs import check_outputs
from bnfold.verification.checks.structure import check_graph
from bnfold.verification.checks.weights import OTHERS, check_weights
from bnfold.verification.equivalence.findings import Alignment
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.equivalence.subgraphs import subgraphs
from bnfold.verification.measurement.measured import Measured, ReferenceSpec
from bnfold.verification.runtime.runner import DeviceMissing, RunFailed


class InvalidModel(Exception):
    """The folded model's graph is not valid; the message says why."""


class Runs(Protocol):
    """How two models are run."""

    def measure(self, spec: ReferenceSpec, cut: list[Subgraph], *, outputs: bool) -> Measured:
        """Run both models, and each of the subgraphs ``cut``; ``outputs`` False leaves out what these don't need.

        Raises RunFailed or InconclusiveError if the original can't be run, DeviceMissing.
        """

    def placement(self, measured: Measured) -> dict[str, Any]:
        """Return what the report says of where the models ran. Raises InconclusiveError if it is not what was asked."""

    def missing_device(self, error: DeviceMissing) -> InconclusiveError:
        """Return what to tell a user whose device is not there."""

    def unavailable(self) -> str | None:
        """Return why nothing can be run; None if there is a runtime. Raises InconclusiveError for a missing device."""


class Comparison(Runs, Protocol):
    """An original and a folded model of one frontend."""

    @property
    def refolded(self) -> bool:
        """True if folding the original again gives the folded model itself."""

    @property
    def says_folded(self) -> bool:
        """True if the folded model records that bnfold has folded it."""

    def interface(self) -> CheckResult | None:
        """Return the structure check's result where the interface decides it; None where it is the same."""

    def aligned(self) -> Alignment | str:
        """Return both graphs, aligned, or why that can't be done. Raises InvalidModel."""

    def hidden_values(self) -> Collection[str]:
        """Return the names of values in the folded model at which no subgraph can begin or end."""


def verify(comparison: Comparison, options: VerifyOptions) -> Verification:
    """Judge the folded model. Raises InconclusiveError if the device that was asked for is not there."""
    try:
        proof = _prove(comparison, options)
    except InvalidModel as error:  # nothing else needs to be judged
        check = CheckResult("structure", "fail", f"the folded model is not valid: {error}")
        return Verification([check], [], [], *_nothing_ran(options), versions())
    ran = run_checks(comparison, options, proof.spec, proof.subgraphs, unaligned=proof.unaligned)
    return Verification(
        [*proof.checks, *ran.checks],
        [*proof.layers, *ran.layers],
        ran.outputs,
        ran.device,
        ran.inputs,
        {**versions(), **ran.versions},
        origin_of(comparison.refolded, says=comparison.says_folded),
    )


def refuse_swapped(original: Named, source: str | None, folded: Named) -> None:
    """Raise UsageError if ``original`` says that it was made from ``folded``: ``source`` is the sha256 it names."""
    if source is not None and source == folded.sha256:
        raise UsageError(
            f"{original.name} was folded from {folded.name}: the original comes first",
            f"bnfold verify {folded.name} {original.name}",
        )


class Named(Protocol):
    """A model that was read from a file, of any kind."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def sha256(self) -> str:
        """The digest of the model file."""


@dataclass(frozen=True)
class _Proof:
    """What is known without a run; ``unaligned`` says why the graphs could not be compared, None if they were."""

    checks: list[CheckResult]
    layers: list[LayerResult]
    subgraphs: list[Subgraph]
    spec: ReferenceSpec
    unaligned: str | None


def _prove(comparison: Comparison, options: VerifyOptions) -> _Proof:
    """Judge the structure and the weights, and find the subgraphs that differ. Raises InvalidModel."""
    needed = set(options.checks) & {"structure", "weights", "layers"}
    found = comparison.aligned() if needed else "not asked for"
    checks: list[CheckResult] = []
    layers: list[LayerResult] = []
    refolded = comparison.refolded
    if "structure" in options.checks:
        checks.append(comparison.interface() or check_graph(found))
    if "weights" in options.checks:
        check, layers = check_weights(found, options.ulps, refolded=refolded)
        checks.append(check)
    # Only where both hold is the folded model itself the correctly rounded fold.
    exact = refolded and isinstance(found, Alignment) and not found.mismatches and not found.wrong_outputs
    cut: list[Subgraph] = []
    if "layers" in options.checks and isinstance(found, Alignment):
        cut = subgraphs(found, comparison.hidden_values(), proved=exact)
    spec = ReferenceSpec(0.0 if refolded else OTHERS / 2, exact, options.tolerances.k)
    return _Proof(checks, layers, cut, spec, found if needed and isinstance(found, str) else None)


@dataclass(frozen=True)
class Ran:
    """What the checks that run models have found, and what the report says of the device and of the inputs."""

    checks: list[CheckResult]
    device: dict[str, Any]
    inputs: dict[str, Any]
    layers: list[LayerResult] = field(default_factory=list)
    outputs: list[OutputResult] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def run_checks(
    runs: Runs,
    options: VerifyOptions,
    spec: ReferenceSpec,
    cut: list[Subgraph],
    *,
    unaligned: str | None = None,
) -> Ran:
    """Run the models for the checks ``layers`` and ``outputs``, as far as they are asked for, and judge them.

    ``unaligned`` says why no subgraphs could be found. Raises InconclusiveError if the device is not there.
    """
    wanted = [check for check in ("layers", "outputs") if check in options.checks]
    device, inputs = _nothing_ran(options)
    if not wanted:
        return Ran([], device, inputs)
    if (reason := runs.unavailable()) is not None:
        return Ran(_inconclusive(wanted, reason, unaligned), device, inputs)
    try:
        measured = runs.measure(spec, cut, outputs="outputs" in wanted)
    except DeviceMissing as error:
        raise runs.missing_device(error) from None
    except (RunFailed, InconclusiveError) as error:
        hint = f" ({error.hint})" if isinstance(error, InconclusiveError) and error.hint else ""
        return Ran(_inconclusive(wanted, f"the original can't be run: {error}{hint}", unaligned), device, inputs)
    device.update(runs.placement(measured))
    checks: list[CheckResult] = []
    layers: list[LayerResult] = []
    outputs: list[OutputResult] = []
    if "layers" in wanted and unaligned is not None:
        checks += _inconclusive(["layers"], unaligned)
    elif "layers" in wanted:
        check, layers = check_layers(measured, cut, options.tolerances.k)
        checks.append(check)
    if "outputs" in wanted:
        check, outputs = check_outputs(measured, options.tolerances)
        checks.append(check)
    return Ran(checks, device, measured.fed.description, layers, outputs, dict(measured.versions))


def _inconclusive(checks: Sequence[str], reason: str, unaligned: str | None = None) -> list[CheckResult]:
    reasons = {check: unaligned if check == "layers" and unaligned is not None else reason for check in checks}
    return [CheckResult(check, "inconclusive", reasons[check]) for check in checks]


def _nothing_ran(options: VerifyOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    return nothing_ran(options.runs.device, options.runs.inputs.seed)
