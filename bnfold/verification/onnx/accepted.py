"""Samples that the original accepts, as many as its outputs need, and what it makes of them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from bnfold.errors import InputError, UsageError
from bnfold.io.load import LoadedModel
from bnfold.options import RunOptions
from bnfold.verification.measurement.error_model import CHANNEL
from bnfold.verification.onnx.inputs import FLOATS, sample_candidates
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import SampleSet
from bnfold.verification.runtime.runner import Run, RunFailed


def accepted(model: LoadedModel, options: RunOptions, modes: list[RunMode], most: int) -> tuple[SampleSet, Run]:
    """Return samples that the original accepts, and its outputs on them."""
    inputs = options.inputs
    assert model.path is not None
    failure: RunFailed | None = None
    if inputs.samples is None and inputs.data is None and (declared := _declared_sizes(model)):
        inputs = replace(inputs, samples=_enough(declared, most))
    for fed, sizes in sample_candidates(model, inputs):
        try:
            run = runtime.run(model.path, fed.samples, modes, options.device, options.limits)
        except runtime.DeviceMissing:
            raise
        except RunFailed as error:
            if inputs.data is not None:
                raise InputError(
                    f"{inputs.data}: the model does not run on these inputs: {error}", "check their shapes and types"
                ) from None
            if len(sizes.batch) == 1:  # a model that takes one size only is none that can't be run
                failure = failure or error
            continue
        if inputs.samples is None and inputs.data is None:
            made = [array.size for array in run.outputs[0][0].values() if array.dtype.kind == "f" and array.size]
            if (more := _enough(made, most)) > 1:
                fed, _ = next(sample_candidates(model, replace(inputs, samples=more), sizes))
                run = runtime.run(model.path, fed.samples, modes, options.device, options.limits)
        return fed, run
    assert failure is not None
    if inputs.shapes:
        raise UsageError(
            f"--shape: the model does not run on inputs of these shapes: {failure}", "check the axes that it declares"
        )
    raise failure


def _enough(sizes: list[int], most: int) -> int:
    """Return how many samples of each kind give the smallest output enough entries."""
    return min(most, -(-CHANNEL // min(sizes, default=CHANNEL)))


def _declared_sizes(model: LoadedModel) -> list[int]:
    """Return the entries of each float output, as the model declares them; none if it leaves a size open."""
    sizes = []
    for info in model.proto.graph.output:
        kind = info.type.tensor_type
        if kind.elem_type in FLOATS:
            if not kind.HasField("shape") or not all(dim.dim_value > 0 for dim in kind.shape.dim):
                return []
            sizes.append(prod(dim.dim_value for dim in kind.shape.dim))
    return sizes
