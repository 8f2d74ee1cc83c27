"""The outputs gate: run both models and judge their difference against the error that is unavoidable.

Any fold rounds the folded weights anew. What that alone costs is measured: the original is run once more with
its weights and inputs moved at random by an ulp, and by how its own outputs differ between optimisation
levels. The two models may differ by a small multiple ``k`` of that, however ill-conditioned the network is; a
fixed tolerance would pass real faults in one network and fail correct folds in another. An output that such a
step changes in kind (its shape, where NaN stands) can't be judged: undecided.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.affine import ulp
from bnfold.errors import InputError, UndecidedError, UsageError
from bnfold.files.external import tensors_of
from bnfold.files.load import LoadedModel, load
from bnfold.files.save import staged
from bnfold.verification import runtime
from bnfold.verification.inputs import (
    FREE_SIZES,
    InputOptions,
    Sample,
    generated_samples,
    has_free_dimensions,
    user_samples,
)
from bnfold.verification.results import GateResult, OutputResult

K = 8.0
"""How many times the unavoidable error two correct models may differ by."""


MOST_MOVED = 2**27
"""Weights that are moved to measure the unavoidable error; in a model of more, the rest stays where it is."""


@dataclass(frozen=True)
class OutputOptions:
    """``k`` scales the unavoidable error; ``rtol`` and ``atol``, if given, judge in its place."""

    level: str = "all"
    k: float = K
    rtol: float | None = None
    atol: float | None = None
    time_limit: float = runtime.TIME_LIMIT
    inputs: InputOptions = field(default_factory=InputOptions)


@dataclass
class Outputs:
    """What the gate found: its verdict, each output at each level, what was fed, and the device that ran it."""

    gate: GateResult
    results: list[OutputResult]
    fed: dict[str, Any]
    device: dict[str, Any]


def check_outputs(original: Path, folded: Path, options: OutputOptions) -> Outputs:
    """Judge the outputs of two model files. Raises InputError or UsageError for inputs of the user that don't fit."""
    device: dict[str, Any] = {"asked": "cpu", "used": None, "nodes_on_cpu": [], "provider_options": {}}
    fed: dict[str, Any] = {"source": None, "seed": options.inputs.seed, "samples": 0}
    found = Outputs(
        _undecided("nothing was run: onnxruntime is not installed (pip install 'bnfold[cpu]')"), [], fed, device
    )
    if not runtime.available():
        return found
    model = load(original)
    try:
        samples, base = _feed(original, model, options, fed)
        device["used"] = base.provider.removesuffix("ExecutionProvider").lower()
        noise = _noise(model, samples, options)
    except (runtime.RunFailed, UndecidedError) as error:
        hint = f" ({error.hint})" if isinstance(error, UndecidedError) and error.hint else ""
        found.gate = _undecided(f"the original can't be run: {error}{hint}")
        return found
    for level in dict.fromkeys(("disable", options.level)):
        reference = base if level == "disable" else None
        outcome = _at_level(original, folded, samples, level, options, reference, base, noise)
        if isinstance(outcome, GateResult):
            found.gate = outcome
            return found
        found.results += outcome
    found.gate = _verdict(found.results, base, options)
    return found


def _undecided(detail: str) -> GateResult:
    return GateResult("outputs", "undecided", detail)


def _at_level(
    original: Path,
    folded: Path,
    samples: list[Sample],
    level: str,
    options: OutputOptions,
    reference: runtime.Run | None,
    base: runtime.Run,
    noise: runtime.Run,
) -> list[OutputResult] | GateResult:
    """Every output at one optimisation level, or the verdict where they can't be compared."""
    try:
        reference = reference or runtime.run(original, samples, level, options.time_limit)
    except runtime.RunFailed as error:
        return _undecided(f"the original fails at level {level}: {error}")
    try:
        made = runtime.run(folded, samples, level, options.time_limit)
    except runtime.RunFailed as error:
        return GateResult("outputs", "fail", f"the folded model fails: {error}")
    wrong = _mismatch(reference, made)
    if _mismatch(base, noise):
        return _undecided(
            "the last bits of the original's weights alone change its outputs' shape, or where NaN stands"
        )
    if wrong:
        return GateResult("outputs", "fail", wrong)
    return [_judge(name, level, reference, made, base, noise) for name in base.outputs[0]]


def _feed(
    path: Path, model: LoadedModel, options: OutputOptions, fed: dict[str, Any]
) -> tuple[list[Sample], runtime.Run]:
    """Samples that the original accepts, and its outputs without optimisation."""
    inputs = options.inputs
    if inputs.data is not None:
        samples = user_samples(inputs, model.proto)
        fed.update(source=str(inputs.data), samples=len(samples))
        try:
            return samples, runtime.run(path, samples, "disable", options.time_limit)
        except runtime.RunFailed as error:
            raise InputError(f"{inputs.data}: the model does not run on these inputs: {error}") from None
    sizes = FREE_SIZES if has_free_dimensions(inputs, model.proto) else FREE_SIZES[:1]
    for free in sizes:
        samples = generated_samples(inputs, model.proto, free)
        try:
            base = runtime.run(path, samples, "disable", options.time_limit)
        except runtime.RunFailed as error:
            failure = error
            continue
        shapes = {name: list(array.shape) for name, array in samples[0].items()}
        fed.update(source="generated", samples=len(samples), kinds=list(inputs.kinds), shapes=shapes)
        return samples, base
    if inputs.shapes:
        raise UsageError(f"--shape: the model does not run on inputs of these shapes: {failure}")
    raise failure


def _noise(model: LoadedModel, samples: list[Sample], options: OutputOptions) -> runtime.Run:
    """The original's outputs with its weights and inputs moved by up to an ulp."""
    moved = load(model.path) if model.path else model
    rng = np.random.default_rng(options.inputs.seed)
    left = MOST_MOVED
    for tensor in tensors_of(moved.proto):
        entries = prod(tensor.dims)
        if tensor.data_type in _JITTERED and (len(tensor.dims) >= 2 or entries >= 16) and entries <= left:
            left -= entries
            _jitter(tensor, moved, rng)
    stirred = [{name: _stirred(data, rng) for name, data in sample.items()} for sample in samples]
    with tempfile.TemporaryDirectory(prefix="bnfold-noise-") as folder:
        target = Path(folder) / "noise.onnx"
        with staged(moved, target) as files:
            return runtime.run(files.model, stirred, "disable", options.time_limit)


def _stirred(data: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Floats moved by up to an ulp; zeros stay, and anything else."""
    if data.dtype.kind != "f":
        return data
    step = np.where(data == 0, 0.0, ulp(data.astype(np.float64), data.dtype))
    return np.asarray((data.astype(np.float64) + step * rng.integers(-1, 2, data.shape)).astype(data.dtype))


_JITTERED = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _jitter(tensor: TensorProto, model: LoadedModel, rng: np.random.Generator) -> None:
    moved = _stirred(model.external.read(tensor), rng)
    for name in ("external_data", "data_location", "float_data", "int32_data", "double_data"):
        tensor.ClearField(name)
    tensor.raw_data = moved.tobytes()


def _mismatch(reference: runtime.Run, made: runtime.Run) -> str | None:
    """What differs in kind: names, types, shapes, or where NaN and infinity stand."""
    for expected, actual in zip(reference.outputs, made.outputs, strict=True):
        if list(expected) != list(actual):
            return f"the outputs are {list(actual)}, not {list(expected)}"
        for name, a in expected.items():
            b = actual[name]
            if a.dtype != b.dtype or a.shape != b.shape:
                return f"output {name!r} is {b.dtype}{list(b.shape)}, not {a.dtype}{list(a.shape)}"
            if a.dtype.kind == "f" and not np.array_equal(_special(a), _special(b), equal_nan=True):
                return f"output {name!r} has NaN or infinity in other places"
    return None


def _finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isfinite(values) if values.dtype.kind in "fc" else np.ones(values.shape, bool)


def _special(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(values), 0, values)


def _judge(
    name: str, level: str, reference: runtime.Run, made: runtime.Run, base: runtime.Run, noise: runtime.Run
) -> OutputResult:
    worst = OutputResult(name, level, 0.0, 0.0, 0.0, 0.0)
    for a, b, plain, moved in zip(reference.outputs, made.outputs, base.outputs, noise.outputs, strict=True):
        result = _ratio(name, level, a[name], b[name], plain[name], moved[name])
        worst = max(worst, result, key=lambda r: (r.ratio, r.sensitivity))
    return worst


def _ratio(
    name: str, level: str, a: NDArray[Any], b: NDArray[Any], plain: NDArray[Any], moved: NDArray[Any]
) -> OutputResult:
    if a.dtype.kind != "f":
        changed, flips = float(np.mean(a != b)), float(max(np.mean(plain != moved), np.mean(plain != a)))
        return OutputResult(
            name, level, changed / flips if flips else np.inf if changed else 0.0, changed, changed, flips
        )
    finite = np.isfinite(a)
    exact = a[finite].astype(np.float64)
    difference = b[finite].astype(np.float64) - exact
    size = _rms(exact)
    unit = float(np.finfo(a.dtype).eps) / 2
    with np.errstate(invalid="ignore"):
        moved_by = np.nan_to_num(moved.astype(np.float64) - plain.astype(np.float64), posinf=0, neginf=0)
        level_by = np.nan_to_num(a.astype(np.float64) - plain.astype(np.float64), posinf=0, neginf=0)
    floor = np.sqrt(_rms(moved_by) ** 2 + _rms(level_by) ** 2 + (unit * size) ** 2)
    error = _rms(difference)
    ratio = 0.0 if error == 0 else error / floor if floor > 0 else np.inf
    largest = float(np.abs(difference).max(initial=0.0))
    scale = float(np.abs(exact).max(initial=0.0))
    return OutputResult(
        name, level, float(ratio), largest, largest / scale if scale else 0.0, float(floor / size) if size else 0.0
    )


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _verdict(results: list[OutputResult], base: runtime.Run, options: OutputOptions) -> GateResult:
    """The gate's verdict over all outputs and levels."""
    if not any(_finite(value).any() for output in base.outputs for value in output.values()):
        return _undecided("the original's outputs hold no finite number: nothing could be compared")
    worst = max(results, key=lambda r: r.ratio)
    figures: dict[str, Any] = {"ratio": worst.ratio, "k": options.k}
    if options.rtol is not None or options.atol is not None:
        rtol, atol = options.rtol or 0.0, options.atol or 0.0
        figures |= {"rtol": rtol, "atol": atol}
        bad = [r for r in results if r.max_abs > atol + rtol * (r.max_abs / r.max_rel if r.max_rel else 0.0)]
        told = f"judged on request by: no difference above {atol:g} + {rtol:g} times the largest output"
        if bad:
            return GateResult(
                "outputs", "fail", f"{told}; output {bad[0].name!r} differs by {bad[0].max_rel:.3g}", figures
            )
        return GateResult("outputs", "pass", told, figures)
    told = f"{worst.ratio:.3g} times the unavoidable error (limit {options.k:g}) in output {worst.name!r}"
    return GateResult("outputs", "pass" if worst.ratio <= options.k else "fail", told, figures)
