"""Types and shapes of a ModelProto's values, by onnx's inference, resting on nothing that no runtime enforces.

Inference runs on a copy without large tensors. Left out as well are claims that runtimes don't check: the
shapes that a file states of values in between, of outputs, and of what a loop carries.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from bnfold.errors import InputError
from bnfold.frontends.onnx.functions import expandable
from bnfold.frontends.onnx.nested import bodies
from bnfold.frontends.onnx.sequences import write_as_slices
from bnfold.frontends.onnx.shape_inference import LARGE, inferred
from bnfold.ir.graph import Shape

Place = tuple[tuple[int, str], ...]
"""Where a graph stands: the position and attribute of each node on the way down from the main graph."""

Type = tuple["np.dtype[Any] | None", "Shape | None"]

_LIKE_THEIR_INPUT = frozenset({"GroupNormalization"})
"""Operators whose result has type and shape of their first input, which onnx's inference does not know."""

_HOLDERS = (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.TENSOR, AttributeProto.TENSORS)


def np_dtype(data_type: int) -> np.dtype[Any] | None:
    """The numpy (or ml_dtypes) type of an ONNX element type; None for one without."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, TypeError):
        return None


def check_node(node: NodeProto, name: str, version: int) -> bool:
    """Return True if ONNX has the operator at this version. Raises InputError if the node doesn't fit it.

    What must fit: how many inputs and outputs it has, and the kinds of its attributes.
    """
    schema = _schema(node.op_type, version)
    if schema is None:
        return False
    for what, names, places in (("input", node.input, schema.inputs), ("output", node.output, schema.outputs)):
        for index in range(places.required):
            if index >= len(names) or not names[index]:
                raise InputError(f"node {name!r}: {node.op_type} lacks its {what} {index}", "the model is invalid")
        if len(names) not in places.counts:
            raise InputError(f"node {name!r}: {node.op_type} can't have {len(names)} {what}s", "the model is invalid")
    given = [attribute.name for attribute in node.attribute]
    if len(set(given)) < len(given) or (node.op_type == "Constant" and len(given) > 1):
        raise InputError(f"node {name!r}: one of its attributes is given twice", "the model is invalid")
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise InputError(
                f"node {name!r}: attribute {attribute.name!r} refers to a function's", "the model is invalid"
            )
        if schema.kinds.get(attribute.name, attribute.type) != attribute.type:
            raise InputError(f"node {name!r}: attribute {attribute.name!r} has the wrong type", "the model is invalid")
    return True


class _Places(NamedTuple):
    """How many inputs or outputs an operator has: those that must be there, and the numbers there may be."""

    required: int
    counts: range


class _Schema(NamedTuple):
    """What ONNX demands of an operator: inputs, outputs, and the types of its attributes."""

    inputs: _Places
    outputs: _Places
    kinds: dict[str, int]


@cache
def _schema(op: str, version: int) -> _Schema | None:
    """Return what ONNX demands of an operator at this version; None if it has no such operator."""
    try:
        schema = onnx.defs.get_schema(op, version, "")
    except onnx.defs.SchemaError:
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    most = schema.max_input if version <= onnx.defs.onnx_opset_version() else sys.maxsize  # later ones may take more
    required = [sum(formal.option == single for formal in formals) for formals in (schema.inputs, schema.outputs)]
    return _Schema(
        _Places(required[0], range(schema.min_input, most + 1)),
        _Places(required[1], range(schema.min_output, schema.max_output + 1)),
        {name: int(getattr(attribute.type, "value", 0)) for name, attribute in schema.attributes.items()},
    )


def infer_types(model: ModelProto) -> dict[Place, dict[str, Type]]:
    """Element types and shapes of the values of each graph. Empty where inference fails."""
    skeleton = without_weights(model)
    try:
        write_as_slices(skeleton.graph)
        known = inferred(skeleton)
    except Exception:  # onnx raises several kinds for invalid models; shapes are then simply unknown
        known = skeleton
    types: dict[Place, dict[str, Type]] = {}
    pending: list[tuple[Place, GraphProto]] = [((), known.graph)]
    while pending:
        place, graph = pending.pop()
        infos = (*graph.output, *graph.value_info, *graph.input)
        types[place] = {info.name: _type(info) for info in infos}
        for index, node in enumerate(graph.node):
            pending.extend(((*place, (index, label)), body) for label, body in bodies(node))
    return types


def _type(info: onnx.ValueInfoProto) -> Type:
    if not info.type.HasField("tensor_type"):
        return None, None
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return np_dtype(tensor.elem_type), None
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        known = dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0
        dims.append(dim.dim_value if known else dim.dim_param or None)
    return np_dtype(tensor.elem_type), tuple(dims)


def without_weights(model: ModelProto) -> ModelProto:
    """A copy in which tensors above LARGE bytes keep their names, types and dims but no data."""
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    if expandable(model):
        copy.functions.extend(model.functions)
    _copy_graph(model.graph, copy.graph, nested=False)
    return copy


def _copy_graph(source: GraphProto, target: GraphProto, *, nested: bool) -> None:
    target.name = source.name
    target.input.extend(source.input)
    target.output.extend(source.output)
    for info in (*(target.input if nested else ()), *target.output):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    for info in target.input:
        for dim in info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ():
            if dim.dim_value < 0:
                dim.Clear()
    for tensor in source.initializer:
        _copy_tensor(tensor, target.initializer.add())
    for node in source.node:
        if node.op_type in _LIKE_THEIR_INPUT and not node.domain:
            target.node.add(op_type="Identity", name=node.name, input=node.input[:1], output=node.output[:1])
            continue
        if not any(a.type in _HOLDERS for a in node.attribute):
            target.node.add().CopyFrom(node)
            continue
        copy = target.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        copy.input.extend(node.input)
        copy.output.extend(node.output)
        for attribute in node.attribute:
            _copy_attribute(attribute, copy.attribute.add())


def _copy_attribute(source: AttributeProto, target: AttributeProto) -> None:
    if source.type in (AttributeProto.GRAPH, AttributeProto.TENSOR):
        target.name, target.type = source.name, source.type
        if source.type == AttributeProto.GRAPH:
            _copy_graph(source.g, target.g, nested=True)
        else:
            _copy_tensor(source.t, target.t)
    else:
        target.CopyFrom(source)


def _copy_tensor(source: TensorProto, target: TensorProto) -> None:
    count = 1
    for dim in source.dims:
        count *= dim
    if count * 4 <= LARGE and source.data_location != TensorProto.EXTERNAL:
        target.CopyFrom(source)
    else:
        target.name, target.data_type = source.name, source.data_type
        target.dims.extend(source.dims)
