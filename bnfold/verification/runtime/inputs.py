"""What the models are fed: the user's data, or generated samples of the shapes that the model declares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.errors import InconclusiveError, InputError, UsageError
from bnfold.options import INPUT_KINDS, PLAIN_KINDS, InputOptions

Sample = dict[str, NDArray[Any]]
Shape = tuple[int, ...]


FREE_SIZES = (32, 224, 8, 64, 128, 256, 1)
"""Sizes to try for free dimensions behind the first one where the graph does not tell which it takes."""

SECOND_SIZES = (64, 128, 8, 256, 32)
"""Sizes to try beside the first one, cheap and likely ones first."""

CONSTANTS = (0.5, -1.0, 0.0, 2.0, -0.25, 1.0, 0.1, -3.0)
"""What the constant inputs are filled with, one after the other."""

LARGEST_FREE = 2048
"""Free dimensions are solved for up to this size."""


MOST_ELEMENTS = 2**28
"""Elements above which an input is not generated (1 GiB in float32)."""


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
                samples = [{name: stored[name] for name in names}]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, DecodeError) as error:
        raise InputError(f"{path}: no inputs for {', '.join(names)}: {error}", "see --help for the layouts") from None
    if not samples:
        raise InputError(f"{path}: no input_0.pb in it or in a test_data_set_0", "see --help for the layouts")
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
    """What free dimensions are set to: a ``batch`` (the first of a shape), sample by sample in turn, and ``others``, of
    which inputs that look like noise take the first and plain ones the last.

    Two sizes tell apart what one can't: a sum over the batch from no sum, a size that was written down from one that
    was not.
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


def generated_samples(options: InputOptions, model: ModelProto, sizes: Sizes) -> tuple[list[Sample], list[str]]:
    """Samples and the kind of each. Raises InconclusiveError for inputs that nothing sensible can be made for."""
    infos = model_inputs(model)
    unknown = set(options.shapes) | set(options.ranges)
    unknown -= {info.name for info in infos}
    if unknown:
        raise UsageError(f"no input is called {sorted(unknown)[0]!r}", f"inputs: {[info.name for info in infos]}")
    samples: list[Sample] = []
    kinds: list[str] = []
    count = options.samples or (2 if len(options.kinds) < len(sizes.batch) else 1)
    for kind in options.kinds:
        for index in range(count):
            rng = np.random.default_rng([options.seed, INPUT_KINDS.index(kind), index])
            shapes = shapes_of(options, infos, *sizes.of(len(samples), kind))
            samples.append({info.name: _generate(info, shapes[info.name], kind, index, options, rng) for info in infos})
            kinds.append(kind)
    return samples, kinds


def size_choices(options: InputOptions, model: ModelProto) -> Iterator[Sizes]:
    """Yield what free dimensions may be set to: two sizes each where the graph allows it, then one, best first."""
    infos = [info for info in model_inputs(model) if info.name not in options.shapes]
    free = {bool(axis) for info in infos for axis, dim in enumerate(info.type.tensor_type.shape.dim) if _is_free(dim)}
    fitting, others = _feasible_sizes(options, model) if True in free else ([1], [])
    if free:
        first = (fitting or others)[0]
        second = next((size for size in SECOND_SIZES if size in fitting and size != first), first)
        yield Sizes((1, 2), (first, second))
        if second != first:
            yield Sizes((1, 2), (first,))
    for size in (*fitting, *others):
        yield Sizes((1,), (size,))


def _is_free(dim: Any) -> bool:
    return not dim.HasField("dim_value")


def _feasible_sizes(options: InputOptions, model: ModelProto) -> tuple[list[int], list[int]]:
    """Return sizes for the free dimensions behind the first: what the graph's own shapes allow, and others to try.

    Products and reshapes fix the size of what they read; the size that makes them fit is looked for by bisection over
    shape inference. Where that tells nothing, some common sizes.
    """
    from bnfold.verification.runtime.input_shapes import misfit

    def at(size: int) -> int:
        return misfit(model, shapes_of(options, model_inputs(model), 1, size))

    fitting = [size for size in FREE_SIZES if at(size) == 0]
    if fitting:
        return fitting, [size for size in FREE_SIZES if size not in fitting]
    low, high = 1, LARGEST_FREE
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if at(middle) < 0 else (low, middle)
    return ([low] if at(low) == 0 else []), list(FREE_SIZES)


def _generate(
    info: ValueInfoProto, shape: Shape, kind: str, index: int, options: InputOptions, rng: np.random.Generator
) -> NDArray[Any]:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type") or (not tensor.HasField("shape") and info.name not in options.shapes):
        raise InconclusiveError(
            f"input {info.name!r} has no tensor type with a shape", "give it with --shape or --inputs"
        )
    if math.prod(shape) > MOST_ELEMENTS:
        raise InconclusiveError(
            f"input {info.name!r} would have {math.prod(shape)} elements", "give --shape or --inputs"
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if info.name in options.ranges:
        low, high = options.ranges[info.name]
        if dtype.kind in "iub":
            limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, min(np.iinfo(dtype).max, 2**62))
            if not limits[0] <= low <= high <= limits[1]:
                raise UsageError(f"--range of {info.name!r}: outside of {dtype}")
            return rng.integers(int(low), int(high), shape, endpoint=True, dtype=np.int64).astype(dtype)
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype.kind in "iub":
        raise InconclusiveError(
            f"input {info.name!r} has type {dtype}: its range can't be guessed", "give --range or --inputs"
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
    corners = np.zeros(shape)
    if corners.size:
        flat = corners.reshape(-1)
        flat[[index % flat.size, -1 - index % flat.size]] = 1.0
    return corners
