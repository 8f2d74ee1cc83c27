"""Judge whether a folded model computes what the original computes: four checks, cheapest first.

``structure`` and ``weights`` prove it from the files, for all inputs; ``layers`` and ``outputs`` run both models and
compare their errors with those that are unavoidable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bnfold.errors import BnfoldError, InconclusiveError, UsageError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import LoadedModel, load, readable
from bnfold.io.provenance import SOURCE_DIGEST, VERSION, provenance_of
from bnfold.options import RunOptions, VerifyOptions
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
from bnfold.verification.checks.structure import check_structure
from bnfold.verification.checks.weights import OTHERS, check_weights
from bnfold.verification.equivalence.alignment import Alignment, align
from bnfold.verification.equivalence.ort_nchwc import BLOCKS, is_nchwc, nchwc_values, without_nchwc
from bnfold.verification.equivalence.subgraphs import Subgraph, subgraphs
from bnfold.verification.reference.model import NotInFloat64, without_functions
from bnfold.verification.refold import is_refolded
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.measure import Measured, ReferenceSpec, inconclusive_device, measure


class Loaded(Protocol):
    """A model that was read from a file, of either kind."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def sha256(self) -> str:
        """Of the model file."""


def verify_files(original: Path, folded: Path, options: VerifyOptions) -> tuple[Verification, LoadedModel, LoadedModel]:
    """Judge ``folded`` against ``original``.

    Raises InputError if either can't be read, InconclusiveError if the device asked for is not there, UsageError if
    ``original`` was folded from ``folded``.
    """
    first, second = load(original), load(folded)
    refuse_swapped(first, provenance_of(first.proto).get(SOURCE_DIGEST), second)
    with readable((first.name, first.proto), (second.name, second.proto)):
        return _judge(first, second, folded, options), first, second


def refuse_swapped(original: Loaded, source: str | None, folded: Loaded) -> None:
    """Raise UsageError if ``original`` says that it was made from ``folded``: ``source`` is the sha256 it names."""
    if source is not None and source == folded.sha256:
        raise UsageError(
            f"{original.name} was folded from {folded.name}: the original comes first",
            f"bnfold verify {folded.name} {original.name}",
        )


def _judge(first: LoadedModel, second: LoadedModel, folded: Path, options: VerifyOptions) -> Verification:
    found: Alignment | str = "not asked for"
    if set(options.checks) & {"structure", "weights", "layers"}:
        try:
            found = _align(first, second)
        except InvalidModel as error:
            return _invalid(str(error), options)
    checks: list[CheckResult] = []
    layers: list[LayerResult] = []
    ours = is_refolded(first, second)
    if "structure" in options.checks:
        checks.append(check_structure(first, second, found))
    if "weights" in options.checks:
        check, layers = check_weights(found, options.ulps, ours=ours)
        checks.append(check)
    # Only where both hold is the folded model itself the best fold there is.
    proved = ours and isinstance(found, Alignment) and not found.mismatches and not found.wrong_outputs
    cut: list[Subgraph] = []
    if "layers" in options.checks and isinstance(found, Alignment):
        cut = subgraphs(found, nchwc_values(second.proto), proved=proved)
    del found
    slack = 0.0 if ours else OTHERS / 2
    spec = ReferenceSpec(slack, proved, options.tolerances.k)
    ran = _run_checks(first, folded, options, spec, cut)
    origin = origin_of(ours, says=VERSION in provenance_of(second.proto))
    return Verification(checks + ran.checks, layers + ran.layers, ran.outputs, ran.device, ran.fed, versions(), origin)


def _invalid(cause: str, options: VerifyOptions) -> Verification:
    """The folded model is no model: nothing else needs to be asked."""
    check = CheckResult("structure", "fail", f"the folded model is not valid: {cause}")
    ran = _nothing_ran(options)
    return Verification([check], [], [], ran.device, ran.fed, versions())


@dataclass
class _Ran:
    """What the checks that run models found."""

    checks: list[CheckResult]
    layers: list[LayerResult]
    outputs: list[OutputResult]
    device: dict[str, Any]
    fed: dict[str, Any]


def _nothing_ran(options: VerifyOptions) -> _Ran:
    return _Ran([], [], [], *nothing_ran(options.runs.device, options.runs.inputs.seed))


def _run_checks(
    original: LoadedModel, folded: Path, options: VerifyOptions, spec: ReferenceSpec, cut: list[Subgraph]
) -> _Ran:
    wanted = [check for check in ("layers", "outputs") if check in options.checks]
    ran = _nothing_ran(options)
    if not wanted:
        return ran
    if not runtime.available():
        if options.runs.device != "cpu":
            raise inconclusive_device(options.runs.device, runtime.RunFailed("onnxruntime is not installed"))
        detail = "nothing was run: onnxruntime is not installed (pip install 'bnfold[cpu]')"
        ran.checks = [CheckResult(check, "inconclusive", detail) for check in wanted]
        return ran
    try:
        found = measure(original, folded, options.runs, spec, cut, outputs="outputs" in wanted)
    except runtime.DeviceMissing as error:
        raise inconclusive_device(options.runs.device, error) from None
    except (runtime.RunFailed, InconclusiveError) as error:
        hint = f" ({error.hint})" if isinstance(error, InconclusiveError) and error.hint else ""
        detail = f"the original can't be run: {error}{hint}"
        ran.checks = [CheckResult(check, "inconclusive", detail) for check in wanted]
        return ran
    ran.fed = found.fed
    ran.device.update(_placed(original, found, options.runs))
    if "layers" in wanted:
        check, ran.layers = check_layers(found, cut, options.tolerances.k)
        ran.checks.append(check)
    if "outputs" in wanted:
        check, ran.outputs = check_outputs(found, options.tolerances)
        ran.checks.append(check)
    return ran


def _placed(original: LoadedModel, found: Measured, options: RunOptions) -> dict[str, Any]:
    """Where the original's nodes really ran. Raises InconclusiveError if that is not what was asked for."""
    on_cpu = found.original.on_cpu
    used = "cpu" if options.device == "cpu" else options.device
    placed = {"used": used, "nodes_on_cpu": [name or op for name, op, _ in on_cpu]}
    if options.device == "cpu":
        return placed
    placed["provider_options"] = dict(found.modes[0].options)  # type: ignore[assignment]
    wrong = on_cpu if options.cpu_nodes == "none" else []
    if options.cpu_nodes == "shape":
        graph = OnnxGraphs(original.proto, original.external).scopes[0]
        floats = {
            node.name for node in graph.nodes for v in node.live_outputs if v.dtype is None or v.dtype.kind == "f"
        }
        known = {node.name for node in graph.nodes}
        wrong = [entry for entry in on_cpu if entry[0] in floats or (entry[0] not in known and entry[1] in _COMPUTE)]
    if wrong:
        raise InconclusiveError(
            f"--device {options.device}: {wrong[0][1]} {wrong[0][0]!r} runs on the CPU ({len(wrong)} nodes in all)",
            "onnxruntime has no CUDA kernel for it; --cpu-nodes any accepts that",
        )
    return placed


_COMPUTE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "FusedConv", "LSTM", "GRU", "RNN"}
)


def _align(first: LoadedModel, second: LoadedModel) -> Alignment | str:
    """Both models, read side by side; or why that can't be done. Raises InvalidModel for an invalid second."""
    try:
        original = OnnxGraphs(without_functions(first.proto), first.external, freeze=True)
    except (NotInFloat64, BnfoldError) as error:
        return f"the original can't be read: {error}"
    layouts = [without_nchwc(second, block) for block in BLOCKS] if is_nchwc(second.proto) else []
    tries = [proto for proto in layouts if proto is not None] or [second.proto]
    try:
        folded = [OnnxGraphs(without_functions(proto), second.external, freeze=True) for proto in tries]
    except NotInFloat64 as error:
        return str(error)
    except BnfoldError as error:
        raise InvalidModel(str(error)) from None
    try:
        return min((align(original, graphs) for graphs in folded), key=lambda found: len(found.mismatches))
    except (ValueError, IndexError, ArithmeticError) as error:  # shapes that contradict each other
        return f"the models can't be followed: {' '.join(str(error).split())[:200]}"


class InvalidModel(Exception):
    """The folded model's graph is none; the message says why."""
