"""Types and shapes behind operators that ONNX's shape inference does not know: those that onnxruntime writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from bnfold.ir.graph import Node, Shape, Value
from bnfold.ir.op_views import LONGEST

FUSED = "com.microsoft::Fused"
"""What the names of onnxruntime's fused operators begin with, before that of the operator."""

KEEPS = frozenset({"com.microsoft::QuickGelu", "com.microsoft::Gelu", "com.microsoft::BiasGelu"})
"""Operators of onnxruntime whose output has the type and shape of their first input."""

Type = tuple[np.dtype[Any] | None, Shape | None]


def infer_types(node: Node) -> None:
    """Give the outputs of a node the types and shapes that follow from its inputs, where they are not known."""
    unknown = [value for value in node.live_outputs if value.shape is None or value.dtype is None]
    first = node.inputs[0] if node.inputs else None
    if not unknown or first is None or first.dtype is None or first.shape is None:
        return
    if node.op in KEEPS:
        found: list[Type] = [(first.dtype, first.shape)]
    else:
        found = _inferred(node)
    for value, (dtype, shape) in zip(node.outputs, found, strict=False):
        if value in unknown and shape is not None and all(isinstance(size, int) for size in shape):
            value.tensor_type = dtype, tuple(size for size in shape if isinstance(size, int))


def _inferred(node: Node) -> list[Type]:
    op = node.op.removeprefix(FUSED)
    if "::" in op or any(value is not None and value.dtype is None for value in node.inputs):
        return []
    attributes = {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attrs.items()
        if not (op != node.op and name.startswith("activation"))
    }
    names = ["" if value is None else f"i{k}" for k, value in enumerate(node.inputs)]
    outputs = ["" if value is None else f"o{k}" for k, value in enumerate(node.outputs)]
    if op != node.op:
        names = names[:3]
    pairs = [(name, value) for name, value in zip(names, node.inputs, strict=False) if value is not None]
    held = [tensor for name, value in pairs if (tensor := _held(node, name, value)) is not None]
    made = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([made], "one", [_info(name, value) for name, value in pairs], [], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)])
    try:
        known = _types(shape_inference.infer_shapes(model, data_prop=True))
    except Exception:  # onnx raises several kinds for nodes that contradict themselves
        return []
    return [known.get(name, (None, None)) for name in outputs]


def _info(name: str, value: Value) -> ValueInfoProto:
    shape = None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _held(node: Node, name: str, value: Value) -> TensorProto | None:
    """Return the data of a constant list of axes, sizes or places, which shapes depend on."""
    if value.dtype is None or value.dtype.kind != "i" or not node.graph.constants.is_constant(value):
        return None
    data = node.graph.constants.evaluate(value)
    return numpy_helper.from_array(data, name) if data.size <= LONGEST else None


def _types(model: ModelProto) -> dict[str, Type]:
    found: dict[str, Type] = {}
    for info in model.graph.value_info:
        kind = info.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        shape = tuple(dims) if kind.HasField("shape") else None
        found[info.name] = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape
    return found
