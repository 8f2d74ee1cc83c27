"""The graph protocol over an ONNX ModelProto."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)

from bnfold.errors import InputError
from bnfold.frontends.onnx.nested import bodies, reads
from bnfold.frontends.onnx.sequences import read_as_slices
from bnfold.frontends.onnx.shape_refinement import refine
from bnfold.frontends.onnx.type_inference import Place, Type, check_node, infer_types, np_dtype
from bnfold.ir.constant_folding import FEW, Constants
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.shape_values import ShapeValues


class Tensors(Protocol):
    """Where the data of tensors comes from."""

    def read(self, tensor: TensorProto) -> NDArray[Any]:
        """All of a tensor."""

    def part(self, tensor: TensorProto, start: int, stop: int) -> NDArray[Any]:
        """Some of its elements, flat."""

    def is_external(self, tensor: TensorProto) -> bool:
        """Return True for one that lies in another file than the model."""


SPARSEST = 64
"""Entries of a sparse initializer, large ones aside, for each that is stored: with more it is not read."""


class _Inline:
    """Tensors that are all in the model itself."""

    read = staticmethod(numpy_helper.to_array)

    def part(self, tensor: TensorProto, start: int, stop: int) -> NDArray[Any]:
        """Some of its elements, flat."""
        return self.read(tensor).reshape(-1)[start:stop]

    def is_external(self, tensor: TensorProto) -> bool:
        """Return True for one that is not in the model, and can't be read here."""
        return tensor.data_location == TensorProto.EXTERNAL


_Nested = tuple[GraphProto, dict[str, Value], str, Place, tuple[Node, str] | None]
"""A graph still to be added: what it sees, its name and place, the node and attribute that hold it."""


class OnnxGraphs:
    """Every scope of a model: ``scopes[0]`` is the main graph, then the bodies nested in it (``bodies``, by node).

    ``tensors`` gives the data of a TensorProto, which may lie outside the model. ``freeze`` takes initializers
    that a caller could override for the constants that they mostly are. Raises InputError for a graph that
    is no graph: values made twice, or read and never made.
    """

    def __init__(self, model: ModelProto, tensors: Tensors | None = None, *, freeze: bool = False) -> None:
        self.model = model
        self.frozen = freeze
        self.outputs_are_named = True
        self._tensors = tensors or _Inline()
        self._external: set[Value] = set()
        self._sizes = ShapeValues()
        self._constants = Constants(self._sizes)
        self._types: dict[Place, dict[str, Type]] | None = None
        self._opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
        self._functions = {(_domain(function.domain), function.name) for function in model.functions}
        self.scopes: list[Graph] = []
        self._places: list[tuple[Graph, Place]] = []
        self.bodies: dict[Node, list[tuple[str, Graph]]] = {}
        self._nested: list[_Nested] = [(model.graph, {}, "", (), None)]
        while self._nested:
            proto, outer, name, place, holder = self._nested.pop(0)
            self._add_scope(proto, outer, name, place)
            if holder is not None:
                self.bodies.setdefault(holder[0], []).append((holder[1], self.scopes[-1]))

    @property
    def initializers_are_inputs(self) -> bool:
        """IR versions before 4 list every initializer among the inputs: they are constants all the same."""
        return 0 < self.model.ir_version < 4

    def type_of(self, place: Place, name: str) -> Type:
        """Element type and shape of a value by onnx's shape inference, run once, when first asked for."""
        if self._types is None:
            self._types = infer_types(self.model)
            scopes = [(graph, self._types.setdefault(place, {})) for graph, place in self._places]
            refine(scopes, self._sizes, self.model)
        return self._types.get(place, {}).get(name, (None, None))

    def is_external(self, value: Value) -> bool:
        """Return True if the value is a tensor whose data lies outside the model."""
        return value in self._external

    def _add_scope(self, proto: GraphProto, outer: dict[str, Value], name: str, place: Place) -> None:
        graph = Graph(name, lambda value: self.type_of(place, value), self._constants, handle=proto)
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
        graph.inputs = [value for value in values.values() if value.is_input and value.tensor is None]
        for sparse in proto.sparse_initializer:
            self._hold_sparse(values.setdefault(sparse.values.name, Value(sparse.values.name, graph)), sparse)
        for node in proto.node:
            graph.nodes.append(self._node(node, graph, values))
        sees = {**outer, **values}
        for index, (node, view) in enumerate(zip(proto.node, graph.nodes, strict=True)):
            self._connect(node, view, sees)
            for label, body in bodies(node):
                inner = f"{name}{view.name}.{label}/"
                self._nested.append((body, sees, inner, (*place, (index, label)), (view, label)))
        read_as_slices(graph, sees)
        for info in proto.output:
            if info.name not in sees:
                raise InputError(f"output {info.name!r} of graph {name or 'main'!r} is never made")
            value = sees[info.name]
            graph.outputs.append(value)
            if value.graph is graph:
                value.is_output = True
            else:
                value.captured = True
        _sort(graph, values)
        self.scopes.append(graph)
        self._places.append((graph, place))

    def _declare(self, values: dict[str, Value], value: Value) -> Value:
        if value.name in values:
            raise InputError(f"the value {value.name!r} is defined twice")
        values[value.name] = value
        return value

    def _hold(self, value: Value, tensor: TensorProto) -> None:
        value.tensor = lambda: self._tensors.read(tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            value.part = lambda start, stop: self._tensors.part(tensor, start, stop)
        value.tensor_type = (np_dtype(tensor.data_type), tuple(tensor.dims))
        if self._tensors.is_external(tensor):
            self._external.add(value)

    def _hold_sparse(self, value: Value, sparse: SparseTensorProto) -> None:
        """A sparse initializer, made dense when it is asked for; one that would be huge is not read."""
        if value.tensor is not None:
            raise InputError(f"the value {value.name!r} is defined twice")
        if value.is_input or prod(sparse.dims) > max(FEW, SPARSEST * prod(sparse.values.dims)):
            return
        value.tensor = lambda: dense(sparse)
        value.tensor_type = (np_dtype(sparse.values.data_type), tuple(sparse.dims))

    def _node(self, proto: NodeProto, graph: Graph, values: dict[str, Value]) -> Node:
        domain = _domain(proto.domain)
        version = self._opsets.get(domain, 1)
        name = proto.name or next((out for out in proto.output if out), proto.op_type)
        standard = not domain and check_node(proto, name, version)
        op = proto.op_type if standard else f"{domain or 'ai.onnx'}::{proto.op_type}"
        if domain and (domain, proto.op_type) in self._functions:
            op = f"function {op}"  # whatever another tool's operator of that name does
        attrs = {a.name: _attribute(a) for a in proto.attribute if a.type in _PLAIN or _is_filler(op, a)}
        node = Node(op, name, version, graph, [], [], attrs, proto)
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
                value.consumers.append(node)
                value.captured |= value.graph is not node.graph


def _domain(name: str) -> str:
    """ONNX's own domain has two names."""
    return "" if name == "ai.onnx" else name


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


def _attribute(proto: AttributeProto) -> Any:
    value = helper.get_attribute_value(proto)
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")  # other bytes are another text
    return list(value) if proto.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _sort(graph: Graph, values: Mapping[str, Value]) -> None:
    """Put nodes that stand before those whose results they read in order; onnxruntime accepts such files too."""
    needs = {
        node: [producer for name in reads(node.handle) if name in values and (producer := values[name].producer)]
        for node in graph.nodes
    }
    made: set[Node] = set()
    for node in graph.nodes:
        if not made.issuperset(needs[node]):
            break
        made.add(node)
    else:
        return
    from graphlib import CycleError, TopologicalSorter

    try:
        graph.nodes[:] = TopologicalSorter(needs).static_order()
    except CycleError as error:
        raise InputError(f"the nodes of graph {graph.name or 'main'!r} form a cycle") from error


def dense(sparse: SparseTensorProto) -> NDArray[Any]:
    """A sparse tensor as an array. Raises InputError for indices outside of it."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.ndim == 2:
            result[tuple(indices.T)] = values
        else:
            result.reshape(-1)[indices] = values
    except (IndexError, ValueError) as error:
        raise InputError(f"sparse tensor {sparse.values.name!r}: {error}", "the file is damaged") from None
    return result
