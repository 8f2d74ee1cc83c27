"""Run programs in torch and their ONNX models on onnxruntime: everything that the layers and outputs checks judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from bnfold.errors import InconclusiveError
from bnfold.frontends.torch.load import LoadedProgram, tensors_fed
from bnfold.frontends.torch.tensors import np_dtype
from bnfold.io.load import load
from bnfold.options import VerifyOptions, limit_of
from bnfold.results.verification import CheckResult, LayerResult, OutputResult, nothing_ran
from bnfold.verification.checks.layers import check_layers
from bnfold.verification.checks.outputs import check_outputs
from bnfold.verification.equivalence.subgraphs import Subgraph
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode, modes_of
from bnfold.verification.runtime.inputs import Sample, Sizes, generated_samples, user_samples
from bnfold.verification.runtime.measure import Measured, Outputs, generated
from bnfold.verification.runtime.perturbation import stirred_by_an_ulp
from bnfold.verification.runtime.runner import RunFailed
from bnfold.verification.runtime.worker import load_arrays

WORKER = "bnfold.frontends.torch.worker"


@dataclass
class Ran:
    """What the checks that run something judge, or why nothing could be run."""

    device: dict[str, Any]
    fed: dict[str, Any]
    measured: Measured | None = None
    failure: str | None = None
    torch: str | None = None

    def layers(self, cut: list[Subgraph], options: VerifyOptions) -> tuple[CheckResult, list[LayerResult]]:
        """The layers check."""
        if self.measured is None:
            return CheckResult("layers", "inconclusive", str(self.failure)), []
        return check_layers(self.measured, cut, options.tolerances.k)

    def outputs(self, options: VerifyOptions) -> tuple[CheckResult, list[OutputResult]]:
        """The outputs check."""
        if self.measured is None:
            return CheckResult("outputs", "inconclusive", str(self.failure)), []
        return check_outputs(self.measured, options.tolerances)


def run_programs(
    original: LoadedProgram,
    folded: Path | None,
    cut: list[Subgraph],
    options: VerifyOptions,
    *,
    exact: bool,
    slack: float,
    onnx: Path | None = None,
) -> Ran:
    """Run the original in torch, as it is and in float64, and the folded model where it belongs."""
    assert original.path is not None
    runs = options.runs
    device, fed = nothing_ran(runs.device, runs.inputs.seed)
    ran = Ran(device, fed)
    if not set(options.checks) & {"layers", "outputs"}:
        return ran
    job = {
        "original": str(original.path.absolute()),
        "folded": None if folded is None else str(folded.absolute()),
        "device": runs.device,
        "pieces": [subgraph.to_dict() for subgraph in cut],
        "exact": exact,
        "slack": slack,
        "moved": None,
    }
    try:
        samples, measured, result = _run(original, job, options)
        measured.moved = lambda: _moved(original, job, samples, options)
        ran.fed = measured.fed
        if onnx is not None:
            measured.folded = _on_onnxruntime(onnx, samples, measured, options)
    except runtime.DeviceMissing as error:
        raise InconclusiveError(f"--device {runs.device}: {error}", "install a torch with CUDA") from None
    except (RunFailed, InconclusiveError) as error:
        ran.failure = f"the original can't be run: {error}"
        return ran
    measured.slack, measured.subgraphs = slack, result["pieces"]
    ran.measured, ran.torch = measured, result["torch"]
    ran.device["used"] = runs.device
    return ran


def _run(
    original: LoadedProgram, job: dict[str, Any], options: VerifyOptions
) -> tuple[list[Sample], Measured, dict[str, Any]]:
    """Run samples that the original accepts: of two sizes where its dimensions are free, else of one.

    Raises RunFailed, InconclusiveError.
    """
    types, choices = _samples(original, options)
    for samples, kinds, fed in choices:
        with runtime.job_folder(samples) as folder:
            told = {"inputs": list(samples[0]), "types": types, "samples": len(samples)}
            told["k"] = limit_of(kinds[0], options.tolerances.k)
            result = runtime.spawn(WORKER, folder, {**job, **told}, options.runs.limits)
            if result["original"] is None or samples is choices[-1][0]:
                return samples, _measured(result, folder, len(samples), kinds, fed), result
    raise AssertionError("there is always a choice")


def _moved(original: LoadedProgram, job: dict[str, Any], samples: list[Sample], options: VerifyOptions) -> Outputs:
    """The original's outputs with its own numbers, and what it is fed, moved by an ulp. Raises RunFailed."""
    seed = options.runs.inputs.seed
    rng = np.random.default_rng(seed)
    stirred = [{name: stirred_by_an_ulp(data, rng) for name, data in sample.items()} for sample in samples]
    with runtime.job_folder(stirred) as folder:
        told = {"inputs": list(samples[0]), "types": interface_of(original)[1], "samples": len(samples), "k": 0.0}
        alone: dict[str, Any] = {"folded": None, "pieces": [], "moved": seed}
        result = runtime.spawn(WORKER, folder, {**job, **told, **alone}, options.runs.limits)
        return _measured(result, folder, len(samples), [], {}).original.outputs[0]


def _measured(result: dict[str, Any], folder: Path, samples: int, kinds: list[str], fed: dict[str, Any]) -> Measured:
    """What a worker left. Raises RunFailed if the original did not run."""
    if result["original"] is not None:
        raise RunFailed(result["original"])
    names: list[str] = result["outputs"]
    positions = [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]

    def outputs(what: str) -> list[dict[str, Any]]:
        return [load_arrays(folder / f"{what}-{k}.npz", positions) for k in range(samples)]

    def run(what: str) -> runtime.Run | RunFailed | None:
        if what not in result:
            return None
        if result[what] is not None:
            return RunFailed(result[what])
        return runtime.Run([outputs(what)], positions, [], result["torch"])

    first = run("original")
    assert isinstance(first, runtime.Run)
    measured = Measured(fed, kinds, [RunMode("disable")], first, run("folded"))
    if result["bfloat16"]:
        import ml_dtypes

        measured.held = {positions[place]: np.dtype(ml_dtypes.bfloat16) for place in result["bfloat16"]}
    if result["wide"] is None:
        measured.reference = outputs("true")
        measured.correctly_rounded = outputs("ideal") if result.get("ideal", "") is None else None
    else:
        measured.reference, measured.fallback_reason = first.outputs[0], result["wide"]
        measured.subgraphs_failed = result["wide"]
    return measured


def _on_onnxruntime(model: Path, samples: list[Sample], found: Measured, options: VerifyOptions) -> Any:
    """The folded model's outputs, under the names of the original's."""
    names = [info.name for info in load(model).proto.graph.input]
    held = {tensor.name for tensor in load(model).proto.graph.initializer}
    names = [name for name in names if name not in held]
    if len(names) != len(samples[0]):
        return RunFailed(f"it takes {len(names)} inputs, not {len(samples[0])}")
    fed = [dict(zip(names, sample.values(), strict=True)) for sample in samples]
    modes = modes_of(options.runs)
    try:
        run = runtime.run(model, fed, modes, options.runs.device, options.runs.limits)
    except runtime.DeviceMissing:
        raise
    except RunFailed as error:
        return error
    known = found.original.names
    if len(run.names) != len(known):
        return RunFailed(f"it makes {len(run.names)} outputs, not {len(known)}")
    renamed = [[dict(zip(known, sample.values(), strict=True)) for sample in mode] for mode in run.outputs]
    found.modes = modes
    found.original = runtime.Run(found.original.outputs * len(modes), known, [], run.version)
    return runtime.Run(renamed, known, run.on_cpu, run.version)


def interface_of(loaded: LoadedProgram, *, second: bool = False) -> tuple[ModelProto, list[str]]:
    """The program's inputs as an ONNX model without nodes, from which inputs are generated, and their types in torch.

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
    """A dimension, or the size that stood for it in the export; else the smallest that is allowed."""
    if isinstance(dimension, int):
        return dimension
    hint = getattr(dimension.node, "hint", None)
    allowed = loaded.program.range_constraints.get(dimension.node.expr)
    first = hint if isinstance(hint, int) else 2 if allowed is None else max(2, int(allowed.lower))
    if not second or allowed is None:  # a size that follows from others stays what it was: the run will tell
        return first
    return first + 1 if first < allowed.upper else max(first - 1, int(allowed.lower))


def _samples(loaded: LoadedProgram, options: VerifyOptions) -> tuple[list[str], list[Choice]]:
    """The types of the inputs in torch, and samples to try, with their kinds and what the report says of them."""
    inputs = options.runs.inputs
    interface, types = interface_of(loaded)
    if inputs.data is not None:
        samples = list(user_samples(inputs, interface))
        fed = {"source": str(inputs.data), "seed": inputs.seed, "samples": len(samples)}
        return types, [(samples, ["data"] * len(samples), fed)]
    first, kinds = generated_samples(inputs, interface, Sizes())
    other = interface_of(loaded, second=True)[0]
    one = (first, kinds, generated(inputs, first))
    if other == interface or inputs.shapes:
        return types, [one]
    more = generated_samples(inputs, other, Sizes())[0]
    mixed = [pair[index % 2] for index, pair in enumerate(zip(first, more, strict=True))]
    return types, [(mixed, kinds, generated(inputs, mixed)), one]


Choice = tuple[list[Sample], list[str], dict[str, Any]]
"""Samples, their kinds, what the report says of them."""
