"""Shapes that onnx's inference leaves open, though the model computes them from what is known before it runs.

Onnx follows a list of sizes through Shape, Gather, Concat and sums, not through divisions, comparisons or constants
that are computed. Here such lists (:mod:`bnfold.ir.shape_values`) give the shapes of what reads them, and these the
shapes behind, node by node. A model without such lists costs one look at each node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, TypeProto, helper, numpy_helper

from bnfold.frontends.onnx.type_inference import Type
from bnfold.ir.graph import Graph, Node, Shape, Value
from bnfold.ir.shape_values import ShapeValues, known

Dim = int | str | None

FULL_END = 2**31 - 1
"""What stands for the end of an axis, or more."""


def refine(scopes: Sequence[tuple[Graph, dict[str, Type]]], sizes: ShapeValues, model: ModelProto) -> None:
    """Write into the types of each graph what follows from computed sizes; each node is given to ``sizes``."""
    news: set[Value] = set()
    for graph, types in scopes:
        for node in graph.nodes:
            if _has_news(node, sizes, news):
                for value, shape in _outputs(node, sizes, model):
                    dtype, before = types.get(value.name, (None, None))
                    after = _merged(before, shape)
                    if after != before:
                        types[value.name] = dtype, after
                        news.add(value)
            sizes.read(node)


def _has_news(node: Node, sizes: ShapeValues, news: set[Value]) -> bool:
    if "::" in node.op or not node.live_outputs:
        return False
    if not news.isdisjoint(node.inputs):
        return True
    return node.op in _READ_SIZES and any(sizes.computed(value) is not None for value in node.inputs)


def _merged(before: Shape | None, after: Shape | None) -> Shape | None:
    """Return what is known of either; where they contradict each other, what was known before."""
    if before is None or after is None:
        return after if before is None else before
    if len(before) != len(after):
        return before
    return tuple(
        new if isinstance(new, int) and not isinstance(old, int) else old if old is not None else new
        for old, new in zip(before, after, strict=True)
    )


def _outputs(node: Node, sizes: ShapeValues, model: ModelProto) -> Iterator[tuple[Value, Shape]]:
    function = _READ_SIZES.get(node.op)
    try:
        if function is not None:
            shape = function(node, sizes)
            if shape is not None:
                yield node.output, shape
                return
        yield from _inferred(node, sizes, model)
    except Exception:  # onnx raises several kinds for a node that contradicts itself: its shapes are simply unknown
        return


def _inferred(node: Node, sizes: ShapeValues, model: ModelProto) -> Iterator[tuple[Value, Shape]]:
    """What onnx infers of one node, from the types of its inputs and the lists of sizes among them."""
    types: dict[str, TypeProto] = {}
    data: dict[str, TensorProto] = {}
    for value in node.inputs:
        if value is None:
            continue
        if value.dtype is None:
            return
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        types[value.name] = helper.make_tensor_type_proto(kind, value.shape)
        entries = sizes.of(value)
        if entries is not None and known(entries):
            array = np.asarray(entries.reshape(-1).tolist(), value.dtype).reshape(entries.shape)
            data[value.name] = numpy_helper.from_array(array, value.name)
    schema = onnx.defs.get_schema(node.op, node.opset, "")
    found = onnx.shape_inference.infer_node_outputs(
        schema, node.handle, types, data, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )
    for value in node.live_outputs:
        if value.name in found and found[value.name].tensor_type.HasField("shape"):
            dims = found[value.name].tensor_type.shape.dim
            yield value, tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)


# --- what reads a list of sizes: its output may be known though the list is not known in whole


def _entries(node: Node, index: int, sizes: ShapeValues) -> list[Dim] | None:
    found = sizes.of(node.input(index))
    return None if found is None else [n if isinstance(n, int | str) else None for n in found.reshape(-1).tolist()]


def _shape_of(node: Node) -> Shape | None:
    return None if node.inputs[0] is None else node.inputs[0].shape


def _reshape(node: Node, sizes: ShapeValues) -> Shape | None:
    wanted, source = _entries(node, 1, sizes), _shape_of(node)
    if wanted is None:
        return None
    dims: list[Dim] = []
    for axis, size in enumerate(wanted):
        if size == 0 and not node.attr("allowzero", 0):
            dims.append(source[axis] if source is not None else None)
        else:
            dims.append(size if not isinstance(size, int) or size >= 0 else None)
    if -1 in wanted and source is not None:
        place = wanted.index(-1)
        dims[place] = _quotient(list(source), dims[:place] + dims[place + 1 :])
    return tuple(dims)


def _quotient(whole: list[Dim], parts: list[Dim]) -> Dim:
    """Return the product of the one divided by that of the other; None where symbols are left over."""
    for part in parts:
        if isinstance(part, str) and part in whole:
            whole.remove(part)
        elif not isinstance(part, int):
            return None
    divisor = prod(part for part in parts if isinstance(part, int))
    if len(whole) == 1 and divisor == 1:
        return whole[0]
    if not divisor or not all(isinstance(size, int) for size in whole):
        return None
    total = prod(size for size in whole if isinstance(size, int))
    return None if total % divisor else total // divisor


def _expand(node: Node, sizes: ShapeValues) -> Shape | None:
    wanted, source = _entries(node, 1, sizes), _shape_of(node)
    if wanted is None or source is None:
        return None
    rank = max(len(wanted), len(source))
    pairs = zip([1] * (rank - len(source)) + list(source), [1] * (rank - len(wanted)) + wanted, strict=True)
    return tuple(_broadcast(own, size) for own, size in pairs)


def _broadcast(own: Dim, size: Dim) -> Dim:
    if size == 1:
        return own
    if own == 1:
        return size
    return own if own == size else size if isinstance(size, int) else own if isinstance(own, int) else None


def _of_shape(node: Node, sizes: ShapeValues) -> Shape | None:
    wanted = _entries(node, 0, sizes)
    return None if wanted is None else tuple(wanted)


def _slice(node: Node, sizes: ShapeValues) -> Shape | None:
    source = _shape_of(node)
    if source is None or node.opset < 10:
        return None
    starts, ends, axes, steps = (_entries(node, index, sizes) for index in range(1, 5))
    if node.input(3) is None:
        axes = list(range(len(starts or ends or ())))
    if axes is None or not all(isinstance(axis, int) for axis in axes):
        return None
    dims = list(source)
    for place, axis in enumerate(axes):
        assert isinstance(axis, int)
        bounds = [None if given is None else given[place] for given in (starts, ends)]
        step = 1 if node.input(4) is None else None if steps is None else steps[place]
        dims[axis] = _cut(dims[axis], bounds[0], bounds[1], step)
    return tuple(dims)


def _cut(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim:
    if start == 0 and step == 1 and isinstance(end, int) and end >= FULL_END:
        return size
    if all(isinstance(n, int) for n in (size, start, end, step)):
        return len(range(*slice(start, end, step).indices(size)))  # type: ignore[arg-type]
    return None


def _pad(node: Node, sizes: ShapeValues) -> Shape | None:
    source, pads = _shape_of(node), _entries(node, 1, sizes)
    if source is None or pads is None or node.opset < 11:
        return None
    axes = list(range(len(source))) if node.input(3) is None else _entries(node, 3, sizes)
    if axes is None or not all(isinstance(axis, int) for axis in axes):
        return None
    dims = list(source)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        assert isinstance(axis, int)
        size = dims[axis]
        if begin == 0 and end == 0:
            continue
        numbers = isinstance(size, int) and isinstance(begin, int) and isinstance(end, int)
        dims[axis] = size + begin + end if numbers else None  # type: ignore[operator]
    return tuple(dims)


def _resize(node: Node, sizes: ShapeValues) -> Shape | None:
    """By sizes alone; scales are left to onnx."""
    wanted, source = _entries(node, 3, sizes), _shape_of(node)
    if wanted is None or source is None or node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    dims = list(source)
    for axis, size in zip(node.attr("axes", range(len(source))), wanted, strict=True):
        dims[axis] = size
    return tuple(dims)


def _nothing(_node: Node, _sizes: ShapeValues) -> Shape | None:
    return None


_READ_SIZES: dict[str, Callable[[Node, ShapeValues], Shape | None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _of_shape,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    **dict.fromkeys(
        ("Tile", "Split", "Range", "OneHot", "TopK", "Upsample", "Unsqueeze", "Squeeze", "ReduceMean", "ReduceSum",
         "ReduceMax", "ReduceMin", "CenterCropPad"),
        _nothing,
    ),
}  # fmt: skip
"""Operators whose output's shape depends on numbers that they read, and what it is."""
