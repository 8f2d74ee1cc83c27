"""Run both models and the float64 yardstick on the same inputs: everything that the layers and outputs checks judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import InconclusiveError, InputError, UsageError
from bnfold.io.load import LoadedModel
from bnfold.options import InputOptions, RunOptions, limit_of
from bnfold.verification.equivalence.subgraphs import Subgraph
from bnfold.verification.error_model import CHANNEL
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode, modes_of
from bnfold.verification.runtime.inputs import Sample, Sizes, generated_samples, size_choices, user_samples
from bnfold.verification.runtime.perturbation import moved_run
from bnfold.verification.runtime.runner import RunFailed
from bnfold.verification.runtime.worker import load_arrays

FLOAT64_WORKER = "bnfold.verification.reference.worker"

SIDE_BY_SIDE = 2**29
"""Bytes of a model up to which the folded model and the float64 run are run at the same time."""

MOST_SAMPLES = 8
"""Samples of each kind that are taken unasked for models with small outputs."""

Outputs = list[dict[str, NDArray[Any]]]
"""Per sample, the outputs by name."""


@dataclass(frozen=True)
class ReferenceSpec:
    """What the proofs have found about the folded model, and so how its errors are to be measured.

    ``slack`` is how many ulps a folded channel's scale may be off, for a fold that was computed in the storage type;
    ``exact`` says that the folded weights are proved to be the exact ones, rounded once: the folded model itself is
    then the best fold there is. ``k`` replaces the limits of the statistic.
    """

    slack: float = 0.0
    exact: bool = False
    k: float | None = None


@dataclass
class Measured:
    """What was fed and what came out. ``true`` and ``ideal`` are float64, or stand-ins; ``substitute`` says why.

    ``held`` gives the types of outputs that are held in fewer bits than the arrays here. ``moved`` runs the original
    with its numbers moved by an ulp, which says what rounding may do to its outputs; it raises RunFailed.
    """

    fed: dict[str, Any]
    kinds: list[str]
    modes: list[RunMode]
    original: runtime.Run
    folded: runtime.Run | RunFailed | None = None
    reference: Outputs = field(default_factory=list)
    correctly_rounded: Outputs | None = None
    fallback_reason: str | None = None
    subgraphs: dict[str, Any] = field(default_factory=dict)
    subgraphs_failed: str | None = None
    slack: float = 0.0
    held: dict[str, Any] = field(default_factory=dict)
    moved: Callable[[], Outputs] | None = None


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
    assert original.path is not None
    found, samples = _feed(original, options)
    found.slack = spec.slack
    found.moved = lambda: _moved(found, original, samples, options)
    with ThreadPoolExecutor(2 if original.size < SIDE_BY_SIDE else 1) as pool:
        other = pool.submit(copy_context().run, _run_folded, found, folded, samples, options) if outputs else None
        reference = pool.submit(
            copy_context().run, _in_float64, found, original.path, folded, samples, options, spec, cut, outputs
        )
        if other is not None:
            other.result()
        failure = reference.exception()
    if isinstance(failure, runtime.DeviceMissing) or (failure is not None and not isinstance(failure, RunFailed)):
        raise failure
    if failure is not None:
        found.subgraphs_failed = str(failure)
        if cut and outputs:
            _without_subgraphs(found, original, folded, samples, options, spec)
        elif outputs:
            _use_fallback(found, original, samples, options, str(failure))
    if outputs and not found.fallback_reason and (odd := _misshapen(found)):
        _use_fallback(found, original, samples, options, odd)
    return found


def _run_folded(found: Measured, folded: Path, samples: list[Sample], options: RunOptions) -> None:
    try:
        found.folded = runtime.run(folded, samples, found.modes, options.device, options.limits)
    except runtime.DeviceMissing:
        raise
    except RunFailed as error:
        found.folded = error


def _without_subgraphs(
    found: Measured,
    original: LoadedModel,
    folded: Path,
    samples: list[Sample],
    options: RunOptions,
    spec: ReferenceSpec,
) -> None:
    """Once more for the outputs alone: a piece may have crashed onnxruntime, or the whole not run in float64."""
    assert original.path is not None
    try:
        _in_float64(found, original.path, folded, samples, options, spec, [], outputs=True)
    except RunFailed as error:
        _use_fallback(found, original, samples, options, str(error))


def _in_float64(
    found: Measured,
    original: Path,
    folded: Path,
    samples: list[Sample],
    options: RunOptions,
    spec: ReferenceSpec,
    cut: list[Subgraph],
    outputs: bool,
) -> None:
    """The float64 run, and the pieces on the way."""
    if not outputs and not cut:
        return
    count = len(samples) if outputs else 1
    with runtime.job_folder(samples[:count]) as folder:
        job = {
            "task": "the float64 run and the pieces",
            "original": str(original.absolute()),
            "folded": str(folded.absolute()),
            "inputs": list(samples[0]),
            "samples": count,
            "ideal": outputs,
            "pieces": [subgraph.to_dict() for subgraph in cut],
            "device": options.device,
            "options": dict(found.modes[0].options),
            "slack": spec.slack,
            "exact": spec.exact,
            "k": limit_of(found.kinds[0], spec.k),
        }
        try:
            result = runtime.spawn(FLOAT64_WORKER, folder, job, options.limits)
        except RunFailed as error:
            where = folder / "piece"
            if where.exists() and not isinstance(error, runtime.DeviceMissing):
                raise RunFailed(f"{error}, in the piece of {where.read_text()}") from None
            raise
        names = result["outputs"]
        found.subgraphs = result["pieces"]
        found.reference = [load_arrays(folder / f"true-{k}.npz", names) for k in range(count)]
        if result["ideal"]:
            found.correctly_rounded = [load_arrays(folder / f"ideal-{k}.npz", names) for k in range(count)]


def _use_fallback(
    found: Measured, original: LoadedModel, samples: list[Sample], options: RunOptions, cause: str
) -> None:
    """No float64 run: measure against the original, and its noise by moving its numbers by an ulp."""
    found.reference, found.fallback_reason = found.original.outputs[0], cause
    found.correctly_rounded = _moved(found, original, samples, options)


def _moved(found: Measured, original: LoadedModel, samples: list[Sample], options: RunOptions) -> Outputs:
    """The original's outputs with its own numbers moved by an ulp. Raises RunFailed."""
    run = moved_run(original, samples, options.device, found.modes[0], options.limits, options.inputs.seed)
    return run.outputs[0]


def _misshapen(found: Measured) -> str | None:
    """Why the float64 outputs are no yardstick: onnx's reference sees shapes or types differently."""
    for reference, actual in zip(found.reference, found.original.outputs[0], strict=True):
        for name, value in actual.items():
            if reference[name].shape != value.shape or (reference[name].dtype.kind == "f") != (value.dtype.kind == "f"):
                return f"the reference makes {list(reference[name].shape)} of output {name!r}"
            if value.dtype.kind == "f" and np.isfinite(value).all() and not np.isfinite(reference[name]).all():
                return f"the reference makes NaN or infinity of output {name!r}"
    return None


def _feed(model: LoadedModel, options: RunOptions) -> tuple[Measured, list[Sample]]:
    """Samples that the original accepts, and its outputs on them."""
    inputs, modes = options.inputs, modes_of(options)
    assert model.path is not None
    failure: RunFailed | None = None
    for samples, kinds, fed, sizes in sample_candidates(model, inputs):
        try:
            run = runtime.run(model.path, samples, modes, options.device, options.limits)
        except runtime.DeviceMissing:
            raise
        except RunFailed as error:
            if inputs.data is not None:
                raise InputError(f"{inputs.data}: the model does not run on these inputs: {error}") from None
            if len(sizes.batch) == 1:  # no fault of the model's if it takes one size only
                failure = failure or error
            continue
        if (more := _enough(run, inputs)) > 1:
            samples, kinds, fed, _ = next(sample_candidates(model, replace(inputs, samples=more), sizes))
            run = runtime.run(model.path, samples, modes, options.device, options.limits)
        return Measured(fed, kinds, modes, run), samples
    assert failure is not None
    if inputs.shapes:
        raise UsageError(f"--shape: the model does not run on inputs of these shapes: {failure}")
    raise failure


def _enough(run: runtime.Run, inputs: InputOptions) -> int:
    """How many samples of each kind make the smallest output large enough for a statistic, if nobody said."""
    if inputs.samples is not None or inputs.data is not None:
        return 1
    sizes = [array.size for array in run.outputs[0][0].values() if array.dtype.kind == "f" and array.size]
    return min(MOST_SAMPLES, -(-CHANNEL // min(sizes, default=CHANNEL)))


SampleCandidate = tuple[list[Sample], list[str], dict[str, Any], Sizes]
"""Samples to try, their kinds, what the report says of them, and the sizes of their free dimensions."""


def sample_candidates(
    model: LoadedModel, inputs: InputOptions, known: Sizes | None = None
) -> Iterator[SampleCandidate]:
    """Yield samples to try, best first; those of ``known`` sizes alone where they have been found to do."""
    if inputs.data is not None:
        samples = user_samples(inputs, model.proto)
        fed = {"source": str(inputs.data), "seed": inputs.seed, "samples": len(samples)}
        yield samples, ["data"] * len(samples), fed, Sizes()
        return
    for sizes in [known] if known else size_choices(inputs, model.proto):
        samples, kinds = generated_samples(inputs, model.proto, sizes)
        yield samples, kinds, generated(inputs, samples), sizes


def generated(inputs: InputOptions, samples: list[Sample]) -> dict[str, Any]:
    """Return what the report says of generated samples: ``shapes`` are those that occur, each once, by input."""
    shapes = [{name: list(array.shape) for name, array in sample.items()} for sample in samples]
    distinct = [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    told = {"source": "generated", "seed": inputs.seed, "samples": len(samples), "kinds": list(inputs.kinds)}
    return {**told, "shapes": distinct}


def inconclusive_device(device: str, error: Exception) -> InconclusiveError:
    """What to tell a user whose device is not there."""
    return InconclusiveError(
        f"--device {device}: {error}",
        "it takes an NVIDIA driver and onnxruntime-gpu: pip uninstall onnxruntime; pip install 'bnfold[cuda]'",
    )
