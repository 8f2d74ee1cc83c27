"""Judge whether a folded model computes what the original computes: four checks, cheapest first.

``structure`` and ``weights`` prove it from the files, for all inputs; ``outputs`` and ``layers`` run both models and
compare their errors with the rounding errors that are expected. Where the proof holds, a layer by itself can only show
what an output shows too, so by default ``layers`` runs for evidence where the proof leaves room, and to find the layer
where an output fails (``docs/verification.md`` has the table of verdicts). What differs between kinds of models
(how interfaces compare, how graphs are read, how models are run) is asked of a :class:`Comparison`, which a frontend
gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
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
from bnfold.verification.checks.outputs import check_outputs
from bnfold.verification.checks.structure import check_graph
from bnfold.verification.checks.weights import EXACT, OTHERS, check_weights
from bnfold.verification.equivalence.findings import Alignment
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.equivalence.subgraphs import subgraphs
from bnfold.verification.measurement.measured import Measured, ReferenceSpec
from bnfold.verification.runtime.devices import device_of
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
    ran = _run(comparison, options, proof)
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
    """What is known without a run. ``alignment`` is a string where the graphs could not be aligned: why."""

    checks: list[CheckResult]
    layers: list[LayerResult]
    alignment: Alignment | str | None
    spec: ReferenceSpec

    @property
    def passes(self) -> bool:
        """True if both models are proved to be the same function: for all inputs, but for rounding."""
        return {check.check for check in self.checks if check.verdict == "pass"} >= {"structure", "weights"}

    @property
    def leaves_room(self) -> bool:
        """True if a single layer may hold a fault all the same: the proof is inconclusive, or allows some ulps."""
        if any(check.verdict == "fail" for check in self.checks):
            return False
        loose = any(check.figures.get("max_ulp", 0.0) > EXACT for check in self.checks)
        return not self.passes or (loose and not self.spec.exact)

    @property
    def unaligned(self) -> str | None:
        """Why the graphs could not be aligned; None if they were."""
        return self.alignment if isinstance(self.alignment, str) else None


def _prove(comparison: Comparison, options: VerifyOptions) -> _Proof:
    """Judge the structure and the weights. Raises InvalidModel."""
    found = comparison.aligned() if set(options.asked) & {"structure", "weights", "layers"} else None
    checks: list[CheckResult] = []
    layers: list[LayerResult] = []
    refolded = comparison.refolded
    if "structure" in options.asked and found is not None:
        checks.append(comparison.interface() or check_graph(found))
    if "weights" in options.asked and found is not None:
        check, layers = check_weights(found, options.ulps, refolded=refolded)
        checks.append(check)
    # Only where both hold is the folded model itself the correctly rounded fold.
    exact = refolded and isinstance(found, Alignment) and not found.mismatches and not found.wrong_outputs
    return _Proof(checks, layers, found, ReferenceSpec(0.0 if refolded else OTHERS / 2, exact, options.tolerances.k))


@dataclass(frozen=True)
class Ran:
    """What the checks that run models have found, and what the report says of the device and of the inputs."""

    checks: list[CheckResult]
    device: dict[str, Any]
    inputs: dict[str, Any]
    layers: list[LayerResult] = field(default_factory=list)
    outputs: list[OutputResult] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def _run(comparison: Comparison, options: VerifyOptions, proof: _Proof) -> Ran:
    """Run the models: the whole ones, and single layers on request, for evidence or for the diagnosis of a failure."""
    automatic = options.checks is None

    def run(checks: Collection[str]) -> Ran:
        cut: list[Subgraph] = []
        if "layers" in checks and isinstance(proof.alignment, Alignment):
            cut = subgraphs(proof.alignment, comparison.hidden_values(), proved=proof.spec.exact)
        proved = automatic and proof.passes
        return run_checks(comparison, options, checks, proof.spec, cut, unaligned=proof.unaligned, proved=proved)

    evidence = automatic and proof.leaves_room
    ran = run([*options.asked, "layers"] if evidence else options.asked)
    if automatic and proof.passes and any(output.verdict == "fail" for output in ran.outputs):
        where = run(["layers"])
        return replace(ran, checks=[*where.checks, *ran.checks], layers=where.layers)
    return ran


def run_checks(
    runs: Runs,
    options: VerifyOptions,
    wanted: Collection[str],
    spec: ReferenceSpec,
    cut: list[Subgraph],
    *,
    unaligned: str | None = None,
    proved: bool = False,
) -> Ran:
    """Run the models for those of the checks ``layers`` and ``outputs`` that are ``wanted``, and judge them.

    ``unaligned`` says why no subgraphs could be found. ``proved``: the models are the same function, so that a verdict
    does not depend on a run that shows nothing. Raises InconclusiveError if the device is not there.
    """
    wanted = [check for check in ("layers", "outputs") if check in wanted]
    device, inputs = _nothing_ran(options)
    if not wanted:
        return Ran([], device, inputs)
    if (reason := runs.unavailable()) is not None:
        return Ran(_inconclusive(wanted, reason, unaligned), device, inputs)
    # On a device or on inputs that the user chose, the run itself is what was asked for.
    required = not proved or options.runs.inputs.chosen or not device_of(options.runs.device).is_host
    try:
        measured = runs.measure(spec, cut, outputs="outputs" in wanted)
    except DeviceMissing as error:
        raise runs.missing_device(error) from None
    except (RunFailed, InconclusiveError) as error:
        hint = f" ({error.hint})" if isinstance(error, InconclusiveError) and error.hint else ""
        reason = f"the original can't be run: {error}{hint}"
        return Ran(_inconclusive(wanted, reason, unaligned, required=required), device, inputs)
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
        checks.append(replace(check, required=required or isinstance(measured.folded, RunFailed)))
    return Ran(checks, device, measured.fed.description, layers, outputs, dict(measured.versions))


def _inconclusive(
    checks: Sequence[str], reason: str, unaligned: str | None = None, *, required: bool = True
) -> list[CheckResult]:
    reasons = {check: unaligned if check == "layers" and unaligned is not None else reason for check in checks}
    return [CheckResult(check, "inconclusive", reasons[check], required=required) for check in checks]


def _nothing_ran(options: VerifyOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    return nothing_ran(options.runs.device, options.runs.inputs.seed)
