"""The inputs of both models: the user's data, or generated samples of the shapes that the model declares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.errors import InconclusiveError, InputError, UsageError, one_line, unreadable
from bnfold.options import INPUT_KINDS, PLAIN_KINDS, InputOptions
from bnfold.verification.runtime.ranges import InputRange

Sample = dict[str, NDArray[Any]]
Shape = tuple[int, ...]


CONSTANTS = (0.5, -1.0, 0.0, 2.0, -0.25, 1.0, 0.1, -3.0)
"""What the constant inputs are filled with, one after the other."""

LAYOUTS = "give a .npz (an array per input), a .npy (the only input), or a folder with input_0.pb, input_1.pb …"

MOST_ELEMENTS = 2**28
"""Elements above which an input is not generated (1 GiB in float32)."""


@dataclass(frozen=True)
class SampleSet:
    """Samples, the kind of each, and what the report says of them."""

    samples: list[Sample]
    kinds: list[str]
    description: dict[str, Any]


def user_sample_set(options: InputOptions, model: ModelProto) -> SampleSet:
    """Return the user's own data. Raises InputError."""
    samples = user_samples(options, model)
    description = {"source": str(options.data), "seed": options.seed, "samples": len(samples)}
    return SampleSet(samples, ["data"] * len(samples), description)


def described(
    options: InputOptions, samples: Sequence[Sample], inferred: Mapping[str, InputRange] | None = None
) -> dict[str, Any]:
    """Return what the report says of generated samples: ``shapes`` are those that occur, each once, by input.

    Of ``inferred`` ranges those are named that the user has not given.
    """
    used = {name: each for name, each in (inferred or {}).items() if name not in options.ranges}
    ranges = {name: {"low": each.low, "high": each.high, "because": each.reason} for name, each in used.items()}
    shapes = [{name: list(array.shape) for name, array in sample.items()} for sample in samples]
    distinct = [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    return {
        "source": "generated",
        "seed": options.seed,
        "samples": len(samples),
        "kinds": list(options.kinds),
        "shapes": distinct,
        **({"ranges": ranges} if ranges else {}),
    }


def model_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs that a caller has to feed: those without an initializer."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in held]


def user_samples(options: InputOptions, model: ModelProto) -> list[Sample]:
    """Read ``.npz`` (one array per input), ``.npy`` (the only input) or a folder of ``input_<i>.pb``."""
    path, infos = options.data, model_inputs(model)
    assert path is not None
    names = [info.name for info in infos]
    try:
        if path.is_dir():
            folders = [path, *sorted(path.glob("test_data_set_*"))]
            samples = [_folder_sample(folder, names) for folder in folders if any(folder.glob("input_*.pb"))]
        elif path.suffix == ".npy":
            samples = [dict(zip(names, [np.load(path, allow_pickle=False)], strict=True))]
        else:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if missing := [name for name in names if name not in stored]:
                    held = ", ".join(stored.files) or "none"
                    raise InputError(
                        f"{path}: no array for input {missing[0]!r}; its arrays: {held}",
                        f"name the arrays as the model's inputs: {', '.join(names)}",
                    )
                samples = [{name: stored[name] for name in names}]
    except (OSError, ValueError, EOFError, TypeError, BadZipFile, DecodeError) as error:
        if isinstance(error, OSError) and not path.exists():
            raise unreadable(path, error) from None
        raise InputError(f"{path}: can't be read as inputs ({one_line(error)})", LAYOUTS) from None
    if not samples:
        raise InputError(f"{path}: no input_0.pb in it or in a test_data_set_0", LAYOUTS)
    return [part for sample in samples for part in _batches(sample, infos)]


def _batches(sample: Sample, infos: Sequence[ValueInfoProto]) -> list[Sample]:
    """One sample cut into several where it holds more rows than the batch that the model declares."""
    counts = set()
    for info in infos:
        dims = info.type.tensor_type.shape.dim
        rows = sample[info.name].shape[0] if sample[info.name].ndim else 0
        batch = dims[0].dim_value if dims and dims[0].HasField("dim_value") else 0
        counts.add(rows // batch if batch and rows % batch == 0 else 1)
    count = counts.pop() if len(counts) == 1 else 1
    if count < 2:
        return [sample]
    cut = {name: np.split(array, count) for name, array in sample.items()}
    return [{name: parts[index] for name, parts in cut.items()} for index in range(count)]


def _folder_sample(folder: Path, names: Sequence[str]) -> Sample:
    sample: Sample = {}
    for index, name in enumerate(names):
        tensor = TensorProto()
        tensor.ParseFromString((folder / f"input_{index}.pb").read_bytes())
        sample[name] = numpy_helper.to_array(tensor)
    return sample


@dataclass(frozen=True)
class Sizes:
    """What free dimensions are set to: the ``batch`` (the first of a shape), sample by sample in turn, and ``others``,
    of which inputs that look like noise take the first and plain ones the last.

    Two sizes show what one can't: a sum over the batch, or a size that the model holds as a constant.
    """

    batch: tuple[int, ...] = (1,)
    others: tuple[int, ...] = (1,)

    def of(self, index: int, kind: str) -> tuple[int, int]:
        """Return the batch and the other free dimensions of one sample."""
        return self.batch[index % len(self.batch)], self.others[-1 if kind in PLAIN_KINDS else 0]


def shapes_of(options: InputOptions, infos: Sequence[ValueInfoProto], batch: int, other: int) -> dict[str, Shape]:
    """Return the shape of every input; free dimensions of one name have one size."""
    named: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    for info in infos:
        found = []
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            size = dim.dim_value if dim.HasField("dim_value") else batch if axis == 0 else other
            if dim.dim_param:
                size = named.setdefault(dim.dim_param, size)
            found.append(size)
        shapes[info.name] = options.shapes.get(info.name) or tuple(found)
    return shapes


def generated_samples(
    options: InputOptions, model: ModelProto, sizes: Sizes, inferred: Mapping[str, InputRange] | None = None
) -> tuple[list[Sample], list[str]]:
    """Samples and the kind of each; integers for which the user gives no range take an ``inferred`` one.

    Raises InconclusiveError for inputs of no known shape, type or range.
    """
    infos = model_inputs(model)
    unknown = set(options.shapes) | set(options.ranges)
    unknown -= {info.name for info in infos}
    if unknown:
        names = ", ".join(info.name for info in infos)
        raise UsageError(f"no input is called {sorted(unknown)[0]!r}", f"inputs: {names}")
    samples: list[Sample] = []
    kinds: list[str] = []
    count = options.samples or (2 if len(options.kinds) < len(sizes.batch) else 1)
    for kind in options.kinds:
        for index in range(count):
            rng = np.random.default_rng([options.seed, INPUT_KINDS.index(kind), index])
            shapes = shapes_of(options, infos, *sizes.of(len(samples), kind))
            made = {}
            for info in infos:
                known = None if info.name in options.ranges or inferred is None else inferred.get(info.name)
                shape = shapes[info.name]
                made[info.name] = (
                    _generate(info, shape, kind, index, options, rng)
                    if known is None
                    else _integers(info, shape, known, rng)
                )
            samples.append(made)
            kinds.append(kind)
    return samples, kinds


def _integers(info: ValueInfoProto, shape: Shape, known: InputRange, rng: np.random.Generator) -> NDArray[Any]:
    """Return integers in an inferred range. What may be a mask begins with a one: a row that hides all is NaN."""
    _check_size(info.name, shape)
    made = rng.integers(known.low, known.high, shape, endpoint=True, dtype=np.int64)
    if not known.binding and made.ndim > 1 and made.size:
        made[..., 0] = 1
    return made.astype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))


def _check_size(name: str, shape: Shape) -> None:
    if math.prod(shape) > MOST_ELEMENTS:
        raise InconclusiveError(f"input {name!r} would have {math.prod(shape)} elements", "give --shape or --inputs")


def _generate(
    info: ValueInfoProto, shape: Shape, kind: str, index: int, options: InputOptions, rng: np.random.Generator
) -> NDArray[Any]:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type") or (not tensor.HasField("shape") and info.name not in options.shapes):
        raise InconclusiveError(
            f"input {info.name!r} has no tensor type with a shape", "give it with --shape or --inputs"
        )
    _check_size(info.name, shape)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if info.name in options.ranges:
        low, high = options.ranges[info.name]
        if dtype.kind in "iub":
            limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, min(np.iinfo(dtype).max, 2**62))
            if not limits[0] <= low <= high <= limits[1]:
                raise UsageError(
                    f"--range of {info.name!r}: outside of {dtype}", f"its values are {limits[0]} to {limits[1]}"
                )
            return rng.integers(int(low), int(high), shape, endpoint=True, dtype=np.int64).astype(dtype)
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype.kind in "iub":
        raise InconclusiveError(
            f"input {info.name!r} has type {dtype}: its range can't be inferred", "give --range or --inputs"
        )
    if dtype.name not in ("float16", "float32", "float64"):
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        hint = "--checks structure,weights verifies from the files alone"
        raise InconclusiveError(f"input {info.name!r} has type {kind}, which can't be fed here", hint)
    return _pattern(kind, index, shape, rng).astype(dtype)


def _pattern(kind: str, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "uniform":
        return rng.random(shape)
    if kind == "large":
        return 16.0 * rng.standard_normal(shape)
    if kind == "constant":
        return np.full(shape, CONSTANTS[index % len(CONSTANTS)])
    impulses = np.zeros(shape)
    if impulses.size:
        flat = impulses.reshape(-1)
        flat[[index % flat.size, -1 - index % flat.size]] = 1.0
    return impulses
