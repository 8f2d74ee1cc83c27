"""Inputs for an ONNX model: which sizes its free dimensions may take, by shape inference, and samples to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto

from bnfold.errors import InputError, UsageError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.frontends.onnx.shape_inference import inferred as with_shapes
from bnfold.frontends.onnx.type_inference import np_dtype, without_weights
from bnfold.io.load import LoadedModel
from bnfold.options import InputOptions
from bnfold.verification.reference.model import NotInFloat64, without_functions
from bnfold.verification.runtime.inputs import (
    Sample,
    SampleSet,
    Sizes,
    described,
    generated_samples,
    model_inputs,
    shapes_of,
    user_sample_set,
)
from bnfold.verification.runtime.ranges import InputRange, inferred_ranges
from bnfold.wording import misfit_hint, shape

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})

FREE_SIZES = (32, 224, 8, 64, 128, 256, 1)
"""Sizes to try for free dimensions behind the first one where the graph does not fix them."""

SECOND_SIZES = (64, 128, 8, 256, 32)
"""Sizes to try beside the first one, cheap and likely ones first."""

LARGEST_FREE = 2048
"""Free dimensions are solved for up to this size."""


def sample_candidates(
    model: LoadedModel, inputs: InputOptions, known: Sizes | None = None
) -> Iterator[tuple[SampleSet, Sizes]]:
    """Yield samples to try, best first, with the sizes of their free dimensions: of ``known`` sizes alone if given."""
    if inputs.data is not None:
        fed = user_sample_set(inputs, model.proto)
        for sample in fed.samples:
            _check_fit(str(inputs.data), sample, model.proto)
        yield fed, Sizes()
        return
    _check_shapes(inputs, model.proto)
    inferred = _integer_ranges(model)
    for sizes in [known] if known else size_choices(inputs, model.proto):
        samples, kinds = generated_samples(inputs, model.proto, sizes, inferred)
        yield SampleSet(samples, kinds, described(inputs, samples, inferred)), sizes


def _check_fit(where: str, sample: Sample, model: ModelProto) -> None:
    """Raise InputError for an array that an input can't take: onnxruntime says so in its own words only."""
    for info in model_inputs(model):
        array, (dtype, dims) = sample[info.name], _declared(info)
        if (dtype is not None and array.dtype.newbyteorder("=") != dtype) or not _fits(array.shape, dims):
            takes = f"{dtype or 'values'} {shape(dims)}" if dims else str(dtype)
            hint = misfit_hint(array.shape, dims) if dtype in (None, array.dtype) else misfit_hint(dtype=dtype)
            raise InputError(
                f"{where}: input {info.name!r} takes {takes}, not {array.dtype} {shape(array.shape)}", hint
            )


def _check_shapes(options: InputOptions, model: ModelProto) -> None:
    """Raise UsageError for a shape that an input does not have."""
    for info in model_inputs(model):
        given, (_, dims) = options.shapes.get(info.name), _declared(info)
        if given is not None and not _fits(given, dims):
            raise UsageError(
                f"--shape: input {info.name!r} takes {shape(dims)}, not {shape(given)}",
                "only an axis that is declared by a name or as 'any' can have another size",
            )


def _declared(info: ValueInfoProto) -> tuple[np.dtype[Any] | None, list[int | str]]:
    """Return the type of an input, None where it is none of numpy's numbers, and its sizes, free ones by name.

    Without sizes it takes any shape: onnxruntime does not check those of a scalar.
    """
    tensor = info.type.tensor_type
    dtype = np_dtype(tensor.elem_type)
    dims = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "any" for dim in tensor.shape.dim]
    return dtype if dtype is not None and dtype.kind in "fiub" else None, dims


def _fits(sizes: Sequence[int], dims: Sequence[int | str]) -> bool:
    pairs = zip(sizes, dims, strict=False)
    return not dims or (len(sizes) == len(dims) and all(isinstance(dim, str) or dim == size for size, dim in pairs))


def _integer_ranges(model: LoadedModel) -> dict[str, InputRange]:
    """Return the ranges that the graph allows its inputs of integers and truth values, by name."""
    types = {info.type.tensor_type.elem_type for info in model_inputs(model.proto)}
    if types <= FLOATS:
        return {}
    try:
        graphs = OnnxGraphs(without_functions(model.proto), model.external, freeze=True)
    except (NotInFloat64, InputError):
        return {}
    return inferred_ranges(graphs.scopes[0])


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

    Products and reshapes fix the sizes of their inputs; the size that makes them fit is found by bisection over shape
    inference. Where that says nothing, some common sizes.
    """

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


def misfit(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """0 if nothing speaks against inputs of these shapes, -1 if they are too small somewhere, 1 if too large.

    Looked at are products with constant matrices, reshapes to sizes that are written down, and results of no size.
    """
    skeleton = without_weights(model)
    del skeleton.graph.value_info[:]
    for info in skeleton.graph.input:
        if info.name in shapes:
            dims = info.type.tensor_type.shape
            dims.ClearField("dim")
            for size in shapes[info.name]:
                dims.dim.add(dim_value=size)
    try:
        seen = with_shapes(skeleton)
    except Exception:  # onnx raises several kinds for models that it takes for invalid
        return 0
    known = {
        info.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim]
        for info in (*seen.graph.value_info, *seen.graph.input, *seen.graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    known |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in seen.graph.node:
        for name in node.output:
            if any(size is not None and size <= 0 for size in known.get(name, ())):
                return -1
        if node.op_type in ("Gemm", "MatMul"):
            first, second = (known.get(name) for name in node.input[:2])
            if first and second and len(first) > 1 and len(second) > 1:
                flags = {a.name: a.i for a in node.attribute}
                inner = first[-2 if flags.get("transA") else -1], second[-1 if flags.get("transB") else -2]
                if None not in inner and inner[0] != inner[1]:
                    return -1 if (inner[0] or 0) < (inner[1] or 0) else 1
        elif node.op_type == "Reshape" and (source := known.get(node.input[0])) and None not in source:
            target = known.get(node.output[0])
            if target and None not in target:
                before, after = _count(source), _count(target)
                if before != after:
                    return -1 if before < after else 1
    return 0


def _count(sizes: list[int | None]) -> int:
    total = 1
    for size in sizes:
        total *= size or 0
    return total
