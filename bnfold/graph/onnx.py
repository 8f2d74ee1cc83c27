"""The graph protocol over an ONNX ModelProto."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.errors import InputError
from bnfold.graph import Graph, Node, Shape, Value
from bnfold.graph.constants import Constants

TensorReader = Callable[[TensorProto], NDArray[Any]]
LARGE = 4096
"""Bytes above which a tensor is left out of the copy that shape inference works on."""


class OnnxGraphs:
    """Every scope of a model: ``scopes[0]`` is the main graph, then the bodies nested in it.

    ``read`` gives the data of a TensorProto (it may lie outside the model). ``freeze`` takes initializers
    that a caller could override for the constants that they mostly are. Raises InputError for a graph that
    is no graph: values made twice, or read and never made.
    """

    def __init__(self, model: ModelProto, read: TensorReader = numpy_helper.to_array, *, freeze: bool = False) -> None:
        self.model = model
        self.frozen = freeze
        self._read = read
        self._external: set[Value] = set()
        self._constants = Constants()
        self._types: dict[str, tuple[np.dtype[Any] | None, Shape | None]] | None = None
        self._opsets = {entry.domain or "": entry.version for entry in model.opset_import}
        self.scopes: list[Graph] = []
        pending: list[tuple[GraphProto, dict[str, Value], str]] = [(model.graph, {}, "")]
        self._nested: list[tuple[GraphProto, dict[str, Value], str]] = []
        while pending:
            for graph, outer, name in pending:
                self._add_scope(graph, outer, name)
            pending, self._nested = self._nested, []

    @property
    def initializers_are_inputs(self) -> bool:
        """IR versions before 4 list every initializer among the inputs: they are constants all the same."""
        return 0 < self.model.ir_version < 4

    def type_of(self, name: str) -> tuple[np.dtype[Any] | None, Shape | None]:
        """Element type and shape of a value by onnx's shape inference, run once, when first asked for."""
        if self._types is None:
            self._types = infer_types(self.model)
        return self._types.get(name, (None, None))

    def is_external(self, value: Value) -> bool:
        """True if the value is a tensor whose data lies outside the model."""
        return value in self._external

    def _add_scope(self, proto: GraphProto, outer: dict[str, Value], name: str) -> None:
        graph = Graph(name, self.type_of, self._constants, handle=proto)
        values: dict[str, Value] = {}
        for info in proto.input:
            self._declare(values, Value(info.name, graph, is_input=True))
        overridable = not (self.initializers_are_inputs or self.frozen)
        for tensor in proto.initializer:
            value = values.get(tensor.name)
            if value is None:
                value = values[tensor.name] = Value(tensor.name, graph)
            elif overridable:
                value.overridable = True
            value.is_input = value.overridable
            self._hold(value, tensor)
        for sparse in proto.sparse_initializer:
            values.setdefault(sparse.values.name, Value(sparse.values.name, graph))
        for node in proto.node:
            graph.nodes.append(self._node(node, graph, values))
        sees = {**outer, **values}
        for node, view in zip(proto.node, graph.nodes, strict=True):
            self._connect(node, view, sees)
            for label, body in _bodies(node):
                self._nested.append((body, sees, f"{name}{view.name}.{label}/"))
        for info in proto.output:
            if info.name not in sees:
                raise InputError(f"output {info.name!r} of graph {name or 'main'!r} is never made")
            value = sees[info.name]
            if value.graph is graph:
                value.is_output = True
            else:
                value.captured = True
        _sort(graph)
        self.scopes.append(graph)

    def _declare(self, values: dict[str, Value], value: Value) -> Value:
        if value.name in values:
            raise InputError(f"the value {value.name!r} is defined twice")
        values[value.name] = value
        return value

    def _hold(self, value: Value, tensor: TensorProto) -> None:
        value.tensor = lambda: self._read(tensor)
        value.tensor_type = (_np_dtype(tensor.data_type), tuple(tensor.dims))
        if tensor.data_location == TensorProto.EXTERNAL:
            self._external.add(value)

    def _node(self, proto: NodeProto, graph: Graph, values: dict[str, Value]) -> Node:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        op = f"{domain}::{proto.op_type}" if domain else proto.op_type
        name = proto.name or next((out for out in proto.output if out), proto.op_type)
        attrs = {a.name: _attribute(a) for a in proto.attribute if a.type in _PLAIN or _is_filler(op, a)}
        node = Node(op, name, self._opsets.get(domain, 1), graph, [], [], attrs, proto)
        for output in proto.output:
            value = self._declare(values, Value(output, graph, producer=node)) if output else None
            node.outputs.append(value)
        if op == "Constant" and node.outputs and node.outputs[0] is not None:
            self._hold_attribute(node.outputs[0], proto)
        return node

    def _hold_attribute(self, value: Value, proto: NodeProto) -> None:
        """A Constant node's data, in any of its attribute forms (sparse ones are not read)."""
        for a in proto.attribute:
            if a.name == "value":
                self._hold(value, a.t)
            elif a.name in ("value_float", "value_floats"):
                _hold_data(value, np.asarray(a.f if a.name == "value_float" else list(a.floats), np.float32))
            elif a.name in ("value_int", "value_ints"):
                _hold_data(value, np.asarray(a.i if a.name == "value_int" else list(a.ints), np.int64))

    def _connect(self, proto: NodeProto, node: Node, sees: dict[str, Value]) -> None:
        for name in proto.input:
            if name and name not in sees:
                raise InputError(f"node {node.name!r} reads {name!r}, which nothing makes")
            value = sees[name] if name else None
            node.inputs.append(value)
            if value is not None:
                value.readers.append(node)
                value.captured |= value.graph is not node.graph


_SKIPPED = (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.TENSOR, AttributeProto.TENSORS)


_PLAIN = (
    AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING,
    AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
)  # fmt: skip


def _is_filler(op: str, attribute: AttributeProto) -> bool:
    """The one tensor among the attributes that a constant is computed from: ConstantOfShape's single value."""
    return op == "ConstantOfShape" and attribute.type == AttributeProto.TENSOR and list(attribute.t.dims) == [1]


def _hold_data(value: Value, data: NDArray[Any]) -> None:
    value.tensor = lambda: data
    value.tensor_type = (data.dtype, data.shape)


def _bodies(node: NodeProto) -> Iterable[tuple[str, GraphProto]]:
    for a in node.attribute:
        if a.type == AttributeProto.GRAPH:
            yield a.name, a.g
        for index, body in enumerate(a.graphs):
            yield f"{a.name}[{index}]", body


def _attribute(proto: AttributeProto) -> Any:
    value = helper.get_attribute_value(proto)
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if proto.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _sort(graph: Graph) -> None:
    """Put nodes that stand before their inputs' producers in order; onnxruntime accepts such files too."""
    made: set[Node] = set()
    for node in graph.nodes:
        if any(v and v.producer and v.graph is graph and v.producer not in made for v in node.inputs):
            break
        made.add(node)
    else:
        return
    from graphlib import CycleError, TopologicalSorter

    needs = {node: [v.producer for v in node.inputs if v and v.producer and v.graph is graph] for node in graph.nodes}
    try:
        graph.nodes[:] = TopologicalSorter(needs).static_order()
    except CycleError as error:
        raise InputError(f"the nodes of graph {graph.name or 'main'!r} form a cycle") from error


def _np_dtype(data_type: int) -> np.dtype[Any] | None:
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, TypeError):
        return None


def infer_types(model: ModelProto) -> dict[str, tuple[np.dtype[Any] | None, Shape | None]]:
    """Element types and shapes by name, inferred on a copy without its large tensors.

    Nested graphs share the table: ONNX forbids a name to be used twice along a path of scopes, and a name
    that two bodies use with different types is left out. Empty where inference fails.
    """
    skeleton = ModelProto()
    skeleton.CopyFrom(_without_weights(model))
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # onnx raises several kinds for invalid models; shapes are then simply unknown
        inferred = skeleton
    types: dict[str, tuple[np.dtype[Any] | None, Shape | None]] = {}
    clash: set[str] = set()
    graphs = [inferred.graph]
    while graphs:
        graph = graphs.pop()
        for info in (*graph.input, *graph.value_info, *graph.output):
            found = _type(info)
            if types.setdefault(info.name, found) != found:
                clash.add(info.name)
        graphs.extend(body for node in graph.node for _, body in _bodies(node))
    for name in clash:
        del types[name]
    return types


def _type(info: onnx.ValueInfoProto) -> tuple[np.dtype[Any] | None, Shape | None]:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        return None, None
    if not tensor.HasField("shape"):
        return _np_dtype(tensor.elem_type), None
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        kind = dim.WhichOneof("value")
        dims.append(dim.dim_value if kind == "dim_value" else dim.dim_param or None)
    return _np_dtype(tensor.elem_type), tuple(dims)


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which tensors above LARGE bytes keep their names, types and dims but no data.

    What the file claims of values in between is left out as well: nobody enforces it, so nothing may rest on it.
    """
    copy = ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    _copy_graph(model.graph, copy.graph)
    return copy


def _copy_graph(source: GraphProto, target: GraphProto) -> None:
    target.name = source.name
    target.input.extend(source.input)
    target.output.extend(source.output)
    for tensor in source.initializer:
        _copy_tensor(tensor, target.initializer.add())
    for node in source.node:
        if not any(a.type in _SKIPPED for a in node.attribute):
            target.node.add().CopyFrom(node)
            continue
        copy = target.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        copy.input.extend(node.input)
        copy.output.extend(node.output)
        for attribute in node.attribute:
            new = copy.attribute.add()
            if attribute.type == AttributeProto.GRAPH:
                new.name, new.type = attribute.name, attribute.type
                _copy_graph(attribute.g, new.g)
            elif attribute.type == AttributeProto.TENSOR:
                new.name, new.type = attribute.name, attribute.type
                _copy_tensor(attribute.t, new.t)
            else:
                new.CopyFrom(attribute)


def _copy_tensor(source: TensorProto, target: TensorProto) -> None:
    count = 1
    for dim in source.dims:
        count *= dim
    if count * 4 <= LARGE and source.data_location != TensorProto.EXTERNAL:
        target.CopyFrom(source)
    else:
        target.name, target.data_type = source.name, source.data_type
        target.dims.extend(source.dims)
