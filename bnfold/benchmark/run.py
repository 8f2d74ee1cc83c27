"""How fast the original and the folded model are on onnxruntime: side by side in one process, in interleaved runs.

Other load of the machine slows both models alike; what is judged is the ratio of neighbouring runs.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.benchmark.worker import BenchJob, BenchResult
from bnfold.errors import InconclusiveError, InputError, UsageError
from bnfold.io.external import external_tensors
from bnfold.io.load import LoadedModel, load
from bnfold.models.onnx import onnx_info
from bnfold.options import BenchOptions
from bnfold.results.benchmark import CONFIDENCE, Benchmark, Level, Timing
from bnfold.verification.onnx.inputs import sample_candidates
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.devices.registry import device_missing
from bnfold.verification.runtime.inputs import Sample, described, model_inputs
from bnfold.verification.runtime.runner import RunFailed
from bnfold.wording import inputs_differ

WORKER = "bnfold.benchmark.worker"


def bench(original: str | Path, folded: str | Path, options: BenchOptions | None = None) -> Benchmark:
    """Measure the latency of both models in interleaved runs.

    Raises UsageError for standard input, InputError if either can't be read,
    InconclusiveError where the original can't be run, or not there.
    """
    options = options or BenchOptions()
    if "-" in (str(original), str(folded)):
        raise UsageError("standard input can't be measured", "name two files")
    models = [load(original), load(folded)]
    if differ := inputs_differ(*([info.name for info in model_inputs(model.proto)] for model in models)):
        text = f"{original} and {folded} can't be run side by side: {differ}"
        raise InconclusiveError(text, "give a model and what was made of it")
    if not runtime.available():
        raise InconclusiveError("onnxruntime is not installed", "pip install 'bnfold[cpu]'")
    try:
        sample, fed = _feed(models[0], options)
        with runtime.job_folder([sample]) as folder:
            job = BenchJob(
                models=[str(Path(path).absolute()) for path in (original, folded)],
                inputs=list(sample),
                levels=list(options.levels),
                device=options.device,
                runs=options.runs,
                warmup=options.warmup,
                threads=options.threads or 0,
            )
            times = runtime.spawn(WORKER, folder, job, BenchResult, options.limits).levels
    except runtime.DeviceMissing as error:
        raise device_missing(options.device, error) from None
    except RunFailed as error:
        raise InconclusiveError(f"{original} and {folded} can't be run side by side: {error}") from None
    levels = [_level(level, *found) for level, found in zip(options.levels, times, strict=True)]
    return Benchmark(
        onnx_info(models[0]),
        onnx_info(models[1]),
        {name: len(model.proto.graph.node) for name, model in zip(("original", "folded"), models, strict=True)},
        {name: _bytes(model) for name, model in zip(("original", "folded"), models, strict=True)},
        levels,
        options.device,
        fed,
    )


def _feed(model: LoadedModel, options: BenchOptions) -> tuple[Sample, dict[str, Any]]:
    """One sample that the original accepts, and what the report says of it. Raises RunFailed, InputError."""
    assert model.path is not None
    failure: RunFailed | None = None
    inputs = replace(options.inputs, samples=None if options.inputs.data else 1)
    for fed, _ in sample_candidates(model, inputs):
        try:
            runtime.run(model.path, fed.samples[:1], [RunMode("disable")], "cpu", options.limits)
        except RunFailed as error:
            if options.inputs.data is not None:
                raise InputError(f"{options.inputs.data}: the model does not run on it: {error}") from None
            failure = failure or error
            continue
        sample = fed.samples[0]
        if inputs.data:
            return sample, {**fed.description, "samples": 1}
        ranges = {name: each for name, each in fed.description.items() if name == "ranges"}
        return sample, {**described(options.inputs, [sample]), **ranges}
    assert failure is not None
    raise failure


def _level(level: str, original: list[float], folded: list[float]) -> Level:
    ratios = sorted(float(ratio) for ratio in np.asarray(folded) / np.asarray(original))
    low, high, confidence = _interval(ratios)
    return Level(level, Timing(original), Timing(folded), statistics.median(ratios), low, high, confidence)


def _interval(ordered: list[float]) -> tuple[float, float, float]:
    """The narrowest pair of entries, equally far from both ends, that holds the median with CONFIDENCE; and with what.

    Exact for any distribution, and honest about few runs, which resampling is not: the median lies below all of n
    runs with a probability of 2**-n, so that not even all of five are enough, and six are.
    """
    n, place, outside = len(ordered), 0, Fraction(1, 2 ** len(ordered))
    while place + 1 < n - place - 1 and 2 * (more := outside + Fraction(comb(n, place + 1), 2**n)) <= 1 - CONFIDENCE:
        place, outside = place + 1, more
    return ordered[place], ordered[n - 1 - place], max(0.0, float(1 - 2 * outside))


def _bytes(model: LoadedModel) -> int:
    return model.size + sum(model.external.span(tensor).length for tensor in external_tensors(model.proto))
