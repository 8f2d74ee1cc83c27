"""Run exported programs in torch, and ONNX models made of them on onnxruntime, for the layers and outputs checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from bnfold.errors import InconclusiveError
from bnfold.frontends.torch.graph import TorchGraphs, draws
from bnfold.frontends.torch.load import LoadedProgram, tensors_fed
from bnfold.frontends.torch.tensors import np_dtype
from bnfold.io.load import load
from bnfold.ir.random_operators import random_outputs
from bnfold.options import RunOptions, VerifyOptions, limit_of
from bnfold.verification.equivalence.subgraph import Subgraph
from bnfold.verification.measurement.decisions import Decided
from bnfold.verification.measurement.measured import Measured, Outputs, Reference, ReferenceSpec, SubgraphRuns
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode, run_modes
from bnfold.verification.runtime.inputs import (
    Sample,
    SampleSet,
    Sizes,
    described,
    generated_samples,
    model_inputs,
    user_sample_set,
)
from bnfold.verification.runtime.perturbation import ALL_MOVED
from bnfold.verification.runtime.ranges import inferred_ranges
from bnfold.verification.runtime.runner import Run, RunFailed
from bnfold.verification.runtime.worker import load_arrays
from bnfold.verification.torch.worker import ProgramJob, ProgramResult

WORKER = "bnfold.verification.torch.worker"


@dataclass(frozen=True)
class ProgramRuns:
    """How a program is run in torch, as it is and in float64, and beside it the ``folded`` program, if there is one."""

    original: LoadedProgram
    folded: Path | None
    options: VerifyOptions

    def unavailable(self) -> str | None:
        """Return None: a loaded program means that torch is there."""
        return None

    def missing_device(self, error: runtime.DeviceMissing) -> InconclusiveError:
        """Return what to tell a user whose device is not there."""
        return InconclusiveError(f"--device {self.options.runs.device}: {error}", "install a torch with CUDA")

    def placement(self, _measured: Measured) -> dict[str, Any]:
        """Return the device: torch runs every operator there."""
        return {"used": self.options.runs.device}

    def measure(self, spec: ReferenceSpec, cut: list[Subgraph], *, outputs: bool) -> Measured:
        """Run samples that the original accepts: of two sizes where its dimensions are free, else of one.

        The layers need the outputs too (``outputs``): these are run anyway. Raises RunFailed, InconclusiveError.
        """
        types = interface_of(self.original)[1]
        failure = ""
        for fed in _sample_sets(self.original, self.options):
            job = self._job(fed.samples, types, spec, cut, limit_of(fed.kinds[0], self.options.tolerances.k))
            with runtime.job_folder(fed.samples) as folder:
                result = runtime.spawn(WORKER, folder, job, ProgramResult, self.options.runs.limits)
                if "original" not in result.failed:
                    further = FurtherProgramRuns(replace(job, subgraphs=[]), fed.samples, self.options.runs)
                    measured = _measured(result, folder, fed, further, spec.slack)
                    return replace(measured, random=_random_outputs(self.original, measured.original.names))
                failure = result.failed["original"]
        raise RunFailed(failure)

    def _job(
        self, samples: list[Sample], types: list[str], spec: ReferenceSpec, cut: list[Subgraph], k: float
    ) -> ProgramJob:
        assert self.original.path is not None
        return ProgramJob(
            original=str(self.original.path.absolute()),
            folded=None if self.folded is None else str(self.folded.absolute()),
            inputs=list(samples[0]),
            types=types,
            samples=len(samples),
            subgraphs=cut,
            device=self.options.runs.device,
            exact=spec.exact,
            slack=spec.slack,
            k=k,
        )


@dataclass(frozen=True)
class FurtherProgramRuns:
    """More runs of the programs of a job (see :class:`bnfold.verification.measurement.measured.FurtherRuns`)."""

    job: ProgramJob
    samples: list[Sample]
    options: RunOptions

    def perturbed(self) -> Outputs:
        """Return the original's outputs with its own numbers and its inputs moved by an ulp. Raises RunFailed."""
        return self.again([0], ALL_MOVED)[0][0]

    def estimated(self) -> Outputs | None:
        """Return the same, or None where they can't be run."""
        try:
            return self.perturbed()
        except RunFailed:
            return None

    def again(self, seeds: list[int], share: float) -> list[list[Outputs]]:
        """Return the original's outputs with other rounding errors of the same size. Raises RunFailed."""
        seeds = [seed + self.options.inputs.seed for seed in seeds]
        job = replace(self.job, folded=None, perturbation_seeds=seeds, moved=share)
        return [[outputs] for outputs in self._run(job, [f"moved{seed}" for seed in seeds])]

    def decided(self, original: Run, folded: Run) -> list[Decided | None]:
        """Return nothing: what programs decide is not followed."""
        return [None] * len(original.outputs)

    def accumulated(self) -> Outputs | None:
        """Return the folded program's float64 outputs with the errors of sums that start at a bias."""
        if self.job.folded is None:
            return None
        job = replace(self.job, noise_seed=self.options.inputs.seed)
        return self._run(job, ["accumulated"])[0]

    def _run(self, job: ProgramJob, runs: list[str]) -> list[Outputs]:
        with runtime.job_folder(self.samples) as folder:
            result = runtime.spawn(WORKER, folder, job, ProgramResult, self.options.limits)
            for what in runs:
                if what in result.failed:
                    raise RunFailed(result.failed[what])
            return [_stored(result, folder, what, len(self.samples)) for what in runs]


@dataclass(frozen=True)
class ConvertedRuns(ProgramRuns):
    """How a program is run in torch, and the ONNX model that was made of it (``model``) on onnxruntime."""

    model: Path

    def measure(self, spec: ReferenceSpec, cut: list[Subgraph], *, outputs: bool) -> Measured:
        """Run both; the original's outputs count for each mode in which onnxruntime runs the model."""
        found = super().measure(spec, cut, outputs=outputs)
        modes = run_modes(self.options.runs)
        folded = self._on_onnxruntime(found, modes)
        original = found.original
        if isinstance(folded, Run):
            original = replace(original, outputs=original.outputs * len(modes), version=folded.version)
        else:
            modes = found.modes
        return replace(found, modes=modes, original=original, folded=folded)

    def _on_onnxruntime(self, found: Measured, modes: list[RunMode]) -> Run | RunFailed:
        """Return the model's outputs, under the names of the original's. Raises DeviceMissing."""
        samples, runs = found.fed.samples, self.options.runs
        names = [info.name for info in model_inputs(load(self.model).proto)]
        if len(names) != len(samples[0]):
            return RunFailed(f"it takes {len(names)} inputs, not {len(samples[0])}")
        fed = [dict(zip(names, sample.values(), strict=True)) for sample in samples]
        try:
            run = runtime.run(self.model, fed, modes, runs.device, runs.limits)
        except runtime.DeviceMissing:
            raise
        except RunFailed as error:
            return error
        known = found.original.names
        if len(run.names) != len(known):
            return RunFailed(f"it makes {len(run.names)} outputs, not {len(known)}")
        renamed = [[dict(zip(known, sample.values(), strict=True)) for sample in mode] for mode in run.outputs]
        return Run(renamed, known, run.on_cpu, run.version)


def _names(result: ProgramResult) -> list[str]:
    """Return a name for each output: its own, or with its place where several outputs are one value."""
    names = result.outputs
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]


def _stored(result: ProgramResult, folder: Path, what: str, samples: int) -> Outputs:
    return [load_arrays(folder / f"{what}-{k}.npz", _names(result)) for k in range(samples)]


def _measured(
    result: ProgramResult, folder: Path, fed: SampleSet, further: FurtherProgramRuns, slack: float
) -> Measured:
    """Read what a worker has left; the original has run."""

    def outputs(what: str) -> Outputs:
        return _stored(result, folder, what, len(fed.samples))

    def run(what: str) -> Run | RunFailed | None:
        if what in result.failed:
            return RunFailed(result.failed[what])
        return Run([outputs(what)], _names(result), [], result.torch) if what in result.ran else None

    original = Run([outputs("original")], _names(result), [], result.torch)
    failure = result.failed.get("reference")
    if failure is None:
        best = outputs("correctly_rounded") if "correctly_rounded" in result.ran else None
        reference = Reference(outputs("reference"), best)
    else:
        reference = Reference(original.outputs[0], further.estimated(), failure)
    return Measured(
        fed,
        [RunMode("disable")],
        original,
        run("folded"),
        reference,
        SubgraphRuns(result.subgraphs, failure),
        further.perturbed,
        further,
        slack,
        {_names(result)[place]: _bfloat16() for place in result.bfloat16},
        {"torch": result.torch},
    )


def _random_outputs(loaded: LoadedProgram, names: list[str]) -> frozenset[str]:
    """Return the names of the outputs that are others in each run."""
    if not any(draws(node) for node in loaded.program.graph.nodes):
        return frozenset()
    return frozenset(names[place] for place in random_outputs(TorchGraphs(loaded.program)))


def _bfloat16() -> np.dtype[Any]:
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def interface_of(loaded: LoadedProgram, *, second: bool = False) -> tuple[ModelProto, list[str]]:
    """Return the program's inputs as an ONNX model without nodes, for the generation of inputs, and their torch types.

    Free dimensions take the size that the program was exported with, or a ``second`` one. Raises InconclusiveError for
    other inputs.
    """
    model, types = ModelProto(ir_version=8), list[str]()
    for name, held in tensors_fed(loaded.program):
        if (dtype := np_dtype(held.dtype)) is None:
            raise InconclusiveError(f"input {name!r} is no tensor of numbers", "give another program")
        shape = [_size(n, loaded, second=second) for n in held.shape]
        types.append(dtype.name)
        if dtype.name == "bfloat16":  # which files of numpy don't hold; the worker rounds
            dtype = np.dtype(np.float32)
        model.graph.input.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape))
    return model, types


def _size(dimension: Any, loaded: LoadedProgram, *, second: bool) -> int:
    """Return a dimension, or the size that stood for it in the export; else the smallest that is allowed."""
    if isinstance(dimension, int):
        return dimension
    hint = getattr(dimension.node, "hint", None)
    allowed = loaded.program.range_constraints.get(dimension.node.expr)
    first = hint if isinstance(hint, int) else 2 if allowed is None else max(2, int(allowed.lower))
    if not second or allowed is None:  # a size that follows from others stays as it is: the run shows if it fits
        return first
    return first + 1 if first < allowed.upper else max(first - 1, int(allowed.lower))


def _sample_sets(loaded: LoadedProgram, options: VerifyOptions) -> Iterator[SampleSet]:
    """Yield samples to try, best first. Raises InconclusiveError, InputError."""
    inputs = options.runs.inputs
    interface, _ = interface_of(loaded)
    if inputs.data is not None:
        yield user_sample_set(inputs, interface)
        return
    inferred = inferred_ranges(TorchGraphs(loaded.program).graph) if _has_integers(interface) else {}
    first, kinds = generated_samples(inputs, interface, Sizes(), inferred)
    other = interface_of(loaded, second=True)[0]
    if other != interface and not inputs.shapes:
        more = generated_samples(inputs, other, Sizes(), inferred)[0]
        mixed = [pair[index % 2] for index, pair in enumerate(zip(first, more, strict=True))]
        yield SampleSet(mixed, kinds, described(inputs, mixed, inferred))
    yield SampleSet(first, kinds, described(inputs, first, inferred))


def _has_integers(interface: ModelProto) -> bool:
    types = (info.type.tensor_type.elem_type for info in interface.graph.input)
    return any(helper.tensor_dtype_to_np_dtype(kind).kind in "iub" for kind in types)
