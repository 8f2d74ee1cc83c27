"""Write edits back into a ModelProto, in place: what no edit names keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.frontends.onnx.annotations import Annotations
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.linear import Scaled

SUFFIX = "_bnfold"

DEFERRED = 2**14
"""Elements from which on a weight is computed only when it is written."""


class OnnxEditor:
    """The :class:`bnfold.ir.graph.Editor` of an ONNX model. Call :meth:`finish` once, after the last edit.

    New tensors get names that nothing in the model uses; a constant that other nodes read is left to them.
    ``defer`` takes large weights, to be computed when they are written; without it they are computed at once.
    ``moved`` names the new tensors that take the place of external ones.
    """

    def __init__(self, graphs: OnnxGraphs, defer: Callable[[TensorProto, Scaled], None] | None = None) -> None:
        self._graphs = graphs
        self._defer = defer
        self._model = graphs.model
        self._names = _all_names(self._model.graph)
        self.annotations = Annotations(graphs, _defined)
        self._tried: dict[str, int] = {}
        self._nested: dict[Graph, set[str]] = {}
        self._aliases: dict[Value, Value] = {}
        self._lost: set[str] = set()
        self._unread: list[Value] = []
        self.moved: set[str] = set()

    def set_constant(self, node: Node, index: int, data: NDArray[Any] | Scaled) -> None:
        """Let ``node`` read a new initializer at ``index``."""
        inputs = node.handle.input
        while len(inputs) <= index:
            inputs.append("")
            node.inputs.append(None)
        old = node.inputs[index]
        stem = old.name if old is not None else f"{node.live_outputs[0].name}_bias"
        inputs[index] = self._add_initializer(stem, data, node.graph.handle)
        if old is not None and self._graphs.is_external(old):
            self.moved.add(inputs[index])
        node.inputs[index] = None
        if old is not None:
            self.annotations.replace(old, node.graph)
            self._forget(old, node)

    def overwrite(self, node: Node, index: int, data: NDArray[Any]) -> None:
        """Give a constant new data under its name, if ``node`` alone reads it; else let ``node`` read a new one."""
        old = node.inputs[index]
        assert old is not None
        tensor = next((t for t in node.graph.handle.initializer if t.name == old.name), None)
        owned = len(old.consumers) == 1 and not (old.is_output or old.captured) and old.graph is node.graph
        if tensor is None or not owned or self._graphs.is_external(old) or old.dtype != data.dtype:
            self.set_constant(node, index, data)
            return
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=data.shape))
        tensor.raw_data = _little_endian(data)
        self.annotations.change(old)

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of ``node``."""
        for position, attribute in enumerate(node.handle.attribute):
            if attribute.name == name:
                node.handle.attribute[position].CopyFrom(helper.make_attribute(name, value))
                return
        node.handle.attribute.append(helper.make_attribute(name, value))

    def freeze(self, node: Node) -> bool:
        """Let a BatchNormalization in training mode normalise by its stored statistics."""
        if any(value.consumers or value.is_output for value in node.live_outputs[1:]):
            return False
        self._lost.update(value.name for value in node.live_outputs[1:])
        normalise_by_stored(node.handle, node.opset)
        del node.outputs[1:]
        return True

    def remove(self, nodes: list[Node], source: Value, target: Value) -> None:
        """Delete ``nodes``; the name of ``target`` survives wherever something else can make it.

        What else reads the values in between is a dead end (:mod:`bnfold.planner.dead_ends`), and goes with them.
        """
        if not nodes[-1].outputs:
            return
        source, target = self._resolve(source), self._resolve(target)
        between = [value for node in nodes for value in node.live_outputs if value is not target]
        free = not (source.captured or source.is_output or source.is_input or self._would_shadow(target))
        if free and source.producer is not None and source.graph is target.graph:
            self._delete(nodes)
            self._rename(source, target)
        elif not target.is_output:
            self._delete(nodes)
            self._redirect(target, source)
        else:
            self._delete(nodes[:-1])
            self._replace_by(nodes[-1], "Identity", source)
        self._delete_readers(between)

    def replace(self, op: str, nodes: list[Node], source: Value, data: NDArray[Any]) -> None:
        """Let the last of ``nodes`` become ``op(source, data)``, and delete the others."""
        last = nodes[-1]
        source = self._resolve(source)
        between = [value for node in nodes[:-1] for value in node.live_outputs]
        self._delete(nodes[:-1])
        self._replace_by(last, op, source)
        self._delete_readers(between)
        last.handle.input.append(self._add_initializer(f"{last.output.name}_{op.lower()}", data, last.graph.handle))

    def mark_changed(self, value: Value) -> None:
        """Note that ``value`` holds other numbers: an annotation of it is untrue."""
        self.annotations.change(value)

    def finish(self) -> None:
        """Drop what the edits leave without a consumer, and remove deleted nodes from the protobuf."""
        dropped: dict[Graph, set[str]] = {}
        while self._unread:
            value = self._unread.pop()
            if value.consumers or value.is_output or value.is_input:
                continue
            node = value.producer
            if node is None:
                dropped.setdefault(value.graph, set()).add(value.name)
            elif node.is_pure and node.outputs and not any(v.consumers or v.is_output for v in node.live_outputs):
                self._delete([node])
        made = _made(self._model.graph)
        for scope in self._graphs.scopes:
            names, lost = dropped.get(scope, set()), self._lost - made
            _delete_where(scope.handle.node, lambda node: not node.op_type)
            _delete_where(scope.handle.initializer, lambda tensor, names=names: tensor.name in names)
            _delete_where(scope.handle.value_info, lambda info, removed=lost | names: info.name in removed)
        self._shorten_inputs(dropped.get(self._graphs.scopes[0], set()))
        self.annotations.drop_annotations()

    def _shorten_inputs(self, dropped: set[str]) -> None:
        """Initializers listed as inputs leave with their data, or all together once they are frozen."""
        graph = self._model.graph
        if self._graphs.frozen and not self._graphs.initializers_are_inputs:
            dropped = dropped | {tensor.name for tensor in graph.initializer}
        _delete_where(graph.input, lambda info: info.name in dropped)

    def _resolve(self, value: Value) -> Value:
        while value in self._aliases:
            value = self._aliases[value]
        return value

    def _would_shadow(self, target: Value) -> bool:
        """Return True if a subgraph defines the name of ``target`` too: made earlier, it would be visible there."""
        names = self._nested.get(target.graph)
        if names is None:
            bodies = list(_bodies(target.graph.handle))[1:]
            names = self._nested[target.graph] = set().union(*map(_defined, bodies))
        return target.name in names

    def _forget(self, value: Value, node: Node) -> None:
        value.consumers.remove(node)
        if not value.consumers:
            self._unread.append(value)

    def _delete(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._lost.update(value.name for value in node.live_outputs)
            for value in node.inputs:
                if value is not None:
                    self._forget(value, node)
            node.inputs.clear()
            node.outputs.clear()
            node.handle.Clear()

    def _delete_readers(self, values: list[Value]) -> None:
        """Delete all that depends on ``values``."""
        while values:
            for node in dict.fromkeys(values.pop().consumers):
                values += node.live_outputs
                self._delete([node])

    def _rename(self, source: Value, target: Value) -> None:
        """``source`` takes over the name and the consumers of ``target``."""
        producer = source.producer
        assert producer is not None
        self._lost.add(source.name)
        outputs = producer.handle.output
        outputs[list(outputs).index(source.name)] = target.name
        producer.outputs[producer.outputs.index(source)] = target
        target.producer = producer
        self._redirect(source, target)
        self._aliases[source] = target

    def _redirect(self, old: Value, new: Value) -> None:
        """Whoever read ``old`` reads ``new``."""
        for node in dict.fromkeys(old.consumers):
            for index, value in enumerate(node.inputs):
                if value is old:
                    node.inputs[index] = new
                    node.handle.input[index] = new.name
                    new.consumers.append(node)
        old.consumers.clear()
        if self._resolve(old) is old and old is not new:
            self._aliases[old] = new

    def _replace_by(self, node: Node, op: str, source: Value) -> None:
        """Turn ``node`` into an ``op`` of ``source`` that keeps its name and output."""
        for value in node.inputs:
            if value is not None:
                self._forget(value, node)
        node.inputs[:] = [source]
        source.consumers.append(node)
        handle = node.handle
        handle.op_type = op
        handle.ClearField("attribute")
        handle.ClearField("input")
        handle.input.append(source.name)
        del handle.output[1:]

    def _add_initializer(self, stem: str, data: NDArray[Any] | Scaled, scope: GraphProto) -> str:
        name, count = stem + SUFFIX, self._tried.get(stem, 1)
        while name in self._names:
            count += 1
            name = f"{stem}{SUFFIX}{count}"
        self._names.add(name)
        self._tried[stem] = count
        graph = self._model.graph if self._graphs.initializers_are_inputs else scope
        data_type = helper.np_dtype_to_tensor_dtype(np.dtype(data.dtype))
        tensor = graph.initializer.add(name=name, data_type=data_type, dims=data.shape)
        if isinstance(data, Scaled) and self._defer is not None and prod(data.shape) >= DEFERRED:
            self._defer(tensor, data)
        else:
            array = data.array() if isinstance(data, Scaled) else data
            tensor.raw_data = _little_endian(array)
        if self._graphs.initializers_are_inputs:
            graph.input.append(helper.make_tensor_value_info(name, data_type, data.shape))
        return name


def _little_endian(array: NDArray[Any]) -> bytes:
    """As raw_data holds it: several integers of 4 bits and less in each byte."""
    if array.dtype.name in ("int4", "uint4"):
        return bytes(numpy_helper.from_array(array).raw_data)
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def normalise_by_stored(node: NodeProto, opset: int) -> None:
    """Make an inference operator of a BatchNormalization, however its operator set says so."""
    del node.output[1:]
    kept = [entry for entry in node.attribute if entry.name not in ("training_mode", "is_test")]
    del node.attribute[:]
    node.attribute.extend(kept)
    if opset < 7:
        node.attribute.append(helper.make_attribute("is_test", 1))


def _delete_where(field: Any, unwanted: Any) -> None:
    """Delete elements of a repeated field in place, runs at a time, last ones first."""
    marked = [index for index, item in enumerate(field) if unwanted(item)]
    while marked:
        end = start = marked.pop()
        while marked and marked[-1] == start - 1:
            start = marked.pop()
        del field[start : end + 1]


def _bodies(graph: GraphProto) -> Iterable[GraphProto]:
    """``graph`` and every graph nested in it."""
    pending = [graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _made(root: GraphProto) -> set[str]:
    """Every name that is an input, an initializer or an output of a node, at any depth."""
    return set().union(*map(_defined, _bodies(root)))


def _defined(graph: GraphProto) -> set[str]:
    """The names that one graph defines itself."""
    names = {info.name for info in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.output)
    return names


def _all_names(root: GraphProto) -> set[str]:
    """Every name in use, at any depth, those of annotations and of nodes included."""
    names = _made(root)
    for graph in _bodies(root):
        names.update(info.name for info in (*graph.value_info, *graph.output))
        for node in graph.node:
            names.add(node.name)
            names.update(node.input)
    return names
