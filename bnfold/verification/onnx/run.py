"""Run two ONNX models and the original in float64 on the same inputs: what the layers and outputs checks judge."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.errors import InconclusiveError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.frontends.onnx.nested import bodies
from bnfold.io.load import LoadedModel
from bnfold.ir.random_operators import RANDOM, random_outputs
from bnfold.options import PLAIN_KINDS, RunOptions, limit_of
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.measurement.decisions import Decided
from bnfold.verification.measurement.measured import Measured, Outputs, Reference, ReferenceSpec, SubgraphRuns
from bnfold.verification.measurement.quantized_steps import QuantizedSteps
from bnfold.verification.onnx.accepted import accepted
from bnfold.verification.onnx.decided import decided_runs
from bnfold.verification.onnx.steps import StepsJob, StepsResult
from bnfold.verification.onnx.worker import CURRENT_SUBGRAPH, ReferenceJob, ReferenceResult
from bnfold.verification.reference.model import without_functions
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode, device_of, run_modes
from bnfold.verification.runtime.inputs import SampleSet
from bnfold.verification.runtime.perturbation import perturbed_run
from bnfold.verification.runtime.runner import Run, RunFailed
from bnfold.verification.runtime.worker import load_arrays

WORKER = "bnfold.verification.onnx.worker"
STEPS_WORKER = "bnfold.verification.onnx.steps"

SIDE_BY_SIDE = 2**29
"""Bytes of a model up to which the folded model and the float64 run are run at the same time."""

MOST_SAMPLES = 8
"""Samples of each kind that are taken for models with small outputs where the user asked for no number."""

PROVED_SAMPLES = 2
"""The same, where the fold is proved to the last bit: what is left to show is that the runtime computes it."""


@dataclass(frozen=True)
class _Pair:
    """Both models, the inputs that the original accepts, its outputs on them, and how all is run."""

    original: LoadedModel
    folded: Path
    options: RunOptions
    spec: ReferenceSpec
    modes: list[RunMode]
    fed: SampleSet
    run: Run

    def perturbed(self) -> Outputs:
        """Return the original's outputs with its own numbers moved by an ulp. Raises RunFailed."""
        options = self.options
        run = perturbed_run(
            self.original, self.fed.samples, options.device, self.modes[:1], options.limits, options.inputs.seed
        )
        return run.outputs[0]

    def quantized(self) -> QuantizedSteps | None:
        """Compare quantized tensors, part by part on one sample of noise and one plain one. Raises RunFailed."""
        kinds, samples = self.fed.kinds, self.fed.samples
        assert self.original.path is not None
        firsts = {kind in PLAIN_KINDS: number for number, kind in reversed(list(enumerate(kinds)))}
        job = StepsJob(
            str(self.original.path.absolute()), str(self.folded.absolute()), list(samples[0]), len(samples),
            sorted(firsts.values()), self.options.device, self.modes,
        )  # fmt: skip
        with runtime.job_folder(samples) as folder:
            found = runtime.spawn(STEPS_WORKER, folder, job, StepsResult, self.options.limits, task="quantized tensors")
            if not found.quantized:
                return None
            flipped = [
                [load_arrays(folder / f"flipped-{mode}-{k}.npz", found.outputs) for k in range(len(samples))]
                for mode in range(len(self.modes))
            ]
            return QuantizedSteps(found.tensors, flipped, found.reason)

    def again(self, seeds: list[int], share: float) -> list[list[Outputs]]:
        """See :class:`bnfold.verification.measurement.measured.FurtherRuns`."""
        options, found = self.options, []
        for seed in seeds:
            seed += options.inputs.seed
            args = self.fed.samples, options.device, self.modes, options.limits, seed, share
            found.append(perturbed_run(self.original, *args).outputs)
        return found

    def decided(self, original: Run, folded: Run) -> list[Decided | None]:
        """See :class:`bnfold.verification.measurement.measured.FurtherRuns`."""
        job = _reference_job(self, [], outputs=True)
        return decided_runs(
            self.original, self.folded, job, self.fed.samples, self.options, self.modes, (original, folded)
        )

    def accumulated(self) -> Outputs | None:
        """See :class:`bnfold.verification.measurement.measured.FurtherRuns`."""
        samples = self.fed.samples
        job = replace(_reference_job(self, [], outputs=True), noise_seed=self.options.inputs.seed)
        with runtime.job_folder(samples) as folder:
            task = "the expected rounding error"
            result = runtime.spawn(WORKER, folder, job, ReferenceResult, self.options.limits, task=task)
            return _stored(folder, "correctly_rounded", result, len(samples)) if result.correctly_rounded else None

    def folded_run(self) -> Run | RunFailed:
        """Run the folded model. Raises DeviceMissing."""
        try:
            return runtime.run(self.folded, self.fed.samples, self.modes, self.options.device, self.options.limits)
        except runtime.DeviceMissing:
            raise
        except RunFailed as error:
            return error

    def fallback(self, reason: str) -> Reference:
        """Measure against the original, and its rounding errors by moving its numbers. Raises RunFailed."""
        return Reference(self.run.outputs[0], self.perturbed(), reason)


def measure(
    original: LoadedModel,
    folded: Path,
    options: RunOptions,
    spec: ReferenceSpec,
    cut: list[Subgraph],
    *,
    outputs: bool = True,
) -> Measured:
    """Run what is to be judged; ``outputs`` False leaves out what the layers check does not need.

    Raises RunFailed or InconclusiveError if the original can't be run, DeviceMissing, InputError or UsageError for
    inputs of the user that don't fit.
    """
    modes = run_modes(options)
    most = PROVED_SAMPLES if spec.exact else MOST_SAMPLES
    pair = _Pair(original, folded, options, spec, modes, *accepted(original, options, modes, most))
    with ThreadPoolExecutor(2 if original.size < SIDE_BY_SIDE else 1) as pool:
        other = pool.submit(copy_context().run, pair.folded_run) if outputs else None
        wide = pool.submit(copy_context().run, _in_float64, pair, cut, outputs)
        folded_run = None if other is None else other.result()
        failure = wide.exception()
    if isinstance(failure, runtime.DeviceMissing) or (failure is not None and not isinstance(failure, RunFailed)):
        raise failure
    if failure is None:
        reference, subgraphs = wide.result()
    else:
        subgraphs = SubgraphRuns(failure=str(failure))
        reference = _outputs_alone(pair, str(failure), again=bool(cut)) if outputs else Reference()
    if outputs and not reference.fallback_reason and (reason := _unlike(reference, pair.run)):
        reference = pair.fallback(reason)
    random = frozenset(_random_outputs(original))
    return Measured(
        pair.fed, modes, pair.run, folded_run, reference, subgraphs, pair.perturbed, pair, spec.slack,
        random=random, quantized=pair.quantized,
    )  # fmt: skip


def _random_outputs(model: LoadedModel) -> Iterator[str]:
    """Yield the names of the outputs that are others in each run."""
    nodes = [*model.proto.graph.node, *(node for function in model.proto.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        if node.op_type in RANDOM or node.op_type == "Dropout":
            break
        nodes += [inner for _, body in bodies(node) for inner in body.node]
    else:
        return  # as in nearly every model
    graphs = OnnxGraphs(without_functions(model.proto), model.external)
    yield from (graphs.scopes[0].outputs[place].name for place in random_outputs(graphs))


def _outputs_alone(pair: _Pair, failure: str, *, again: bool) -> Reference:
    """Return the reference for the outputs after the float64 run has failed.

    It is tried ``again`` without the subgraphs: one of them may have crashed onnxruntime. Raises RunFailed.
    """
    if again:
        try:
            return _in_float64(pair, [], outputs=True)[0]
        except RunFailed as error:
            failure = str(error)
    return pair.fallback(failure)


def _in_float64(pair: _Pair, cut: list[Subgraph], outputs: bool) -> tuple[Reference, SubgraphRuns]:
    """Run the original in float64, and the subgraphs on the way. Raises RunFailed."""
    if not outputs and not cut:
        return Reference(), SubgraphRuns()
    job = _reference_job(pair, cut, outputs=outputs)
    samples = pair.fed.samples[: job.samples]
    task = "the float64 run and the subgraphs"
    with runtime.job_folder(samples) as folder:
        try:
            result = runtime.spawn(WORKER, folder, job, ReferenceResult, pair.options.limits, task=task)
        except RunFailed as error:
            where = folder / CURRENT_SUBGRAPH
            if where.exists() and not isinstance(error, runtime.DeviceMissing):
                raise RunFailed(f"{error}, in the subgraph of {where.read_text()}") from None
            raise

        known = _stored(folder, "reference", result, len(samples))
        best = _stored(folder, "correctly_rounded", result, len(samples)) if result.correctly_rounded else None
        return Reference(known, best), SubgraphRuns(result.subgraphs)


def _stored(folder: Path, name: str, result: ReferenceResult, samples: int) -> Outputs:
    return [load_arrays(folder / f"{name}-{k}.npz", result.outputs) for k in range(samples)]


def _reference_job(pair: _Pair, cut: list[Subgraph], *, outputs: bool) -> ReferenceJob:
    assert pair.original.path is not None
    return ReferenceJob(
        original=str(pair.original.path.absolute()),
        folded=str(pair.folded.absolute()),
        inputs=list(pair.fed.samples[0]),
        samples=len(pair.fed.samples) if outputs else 1,
        correctly_rounded=outputs,
        subgraphs=cut,
        device=pair.options.device,
        mode=pair.modes[0],
        slack=pair.spec.slack,
        exact=pair.spec.exact,
        k=limit_of(pair.fed.kinds[0], pair.spec.k),
        noise_seed=None,
    )


def _unlike(reference: Reference, run: Run) -> str | None:
    """Return why the float64 outputs can't be compared: onnx's reference sees shapes or types differently."""
    for expected, actual in zip(reference.outputs, run.outputs[0], strict=True):
        for name, value in actual.items():
            wide = expected[name]
            if wide.shape != value.shape or (wide.dtype.kind == "f") != (value.dtype.kind == "f"):
                return f"the reference makes {list(wide.shape)} of output {name!r}"
            if value.dtype.kind == "f" and np.isfinite(value).all() and not np.isfinite(wide).all():
                return f"the reference makes NaN or infinity of output {name!r}"
    return None


def placement(original: LoadedModel, measured: Measured, options: RunOptions) -> dict[str, Any]:
    """Return where the original's nodes really ran. Raises InconclusiveError if that is not what was asked for."""
    on_cpu, device = measured.original.on_cpu, device_of(options.device)
    placed: dict[str, Any] = {"used": options.device, "nodes_on_cpu": [name or op for name, op, _ in on_cpu]}
    if device.is_host:
        return placed
    placed["provider_options"] = dict(measured.modes[0].options)
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
            f"onnxruntime has no {device.label} kernel for it; --cpu-nodes any accepts that",
        )
    return placed


_COMPUTE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "FusedConv", "LSTM", "GRU", "RNN"}
)
