"""Run an ONNX model level by level on onnxruntime, with the statistics of its BatchNorms fed from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper

from bnfold.calibration.data import Input, freed
from bnfold.calibration.free_batch import rows_are_free
from bnfold.calibration.layers import Layer, Level, divide, held, layers_of, reading
from bnfold.calibration.network import Fed, Values
from bnfold.errors import InconclusiveError, one_line
from bnfold.frontends.onnx.editor import normalise_by_stored
from bnfold.frontends.onnx.fold import OnnxFoldable
from bnfold.frontends.onnx.type_inference import np_dtype
from bnfold.io.load import LoadedModel
from bnfold.ir.graph import Node, Value
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.worker import Session

INSTALL = "pip install 'bnfold[cpu]'"


class OnnxNetwork:
    """The :class:`bnfold.calibration.network.Network` of a loaded model. Sessions are made when they are first used."""

    def __init__(self, source: OnnxFoldable) -> None:
        self.source = source
        self.loaded = loaded = source.loaded
        self.graphs = source.graphs()
        self.layers, self.kept = layers_of(self.graphs)
        self._reads = reading(self.graphs)
        self.levels = divide(self.graphs.scopes[0], self.layers, self._reads)
        fed = self.graphs.scopes[0].inputs
        self.inputs = freed([_input(loaded, value) for value in fed], lambda: rows_are_free(self.levels, fed))
        self._own = {layer.node: layer for layer in self.layers}
        self._sessions: dict[int, Any] = {}

    def advance(self, index: int, values: Values, fed: Mapping[Layer, Fed]) -> Values:
        """What a level leaves, from what the level below left. Raises InconclusiveError where it can't be run."""
        level = self.levels[index]
        if not level.nodes:
            return {value.name: values[value.name] for value in level.live_values}
        session = self._sessions.get(index)
        if session is None:
            if not runtime.available():
                raise InconclusiveError("nothing can be run: onnxruntime is not installed", INSTALL)
            session = self._sessions[index] = self._session(level, values)
        given = {name: values[name] for name in session.reads}
        for layer in session.layers:
            types = layer.node.inputs[3], layer.node.inputs[4]
            for name, data, value in zip(_names(layer), fed[layer], types, strict=True):
                assert value is not None
                given[name] = np.asarray(data).astype(value.dtype)
        try:
            made = session.run(given)
        except Exception as error:  # onnxruntime raises many kinds
            raise InconclusiveError(f"{self.loaded.name}: onnxruntime can't run it ({one_line(error)})") from None
        return {
            value.name: made[value.name] if value.name in made else values[value.name] for value in level.live_values
        }

    def release(self, index: int) -> None:
        """A level is done with: what it holds in memory may go."""
        self._sessions.pop(index, None)

    def _session(self, level: Level, values: Values) -> _Session:
        """The level's nodes as a model of their own."""
        proto = self.loaded.proto
        model = ModelProto(ir_version=max(4, proto.ir_version))  # initializers need be no inputs
        model.opset_import.extend(proto.opset_import)
        model.functions.extend(proto.functions)
        graph = model.graph
        graph.name = "level"
        made = {value for node in level.nodes for value in node.live_outputs}
        read = dict.fromkeys(value for node in level.nodes for value in self._reads(node))
        self._add_constants(graph, [value for value in read if held(value)])
        layers = [self._own[node] for node in level.nodes if node in self._own]
        for node in level.nodes:
            graph.node.append(_with_fed_statistics(node, self._own.get(node)))
        reads = [value.name for value in read if value not in made and not held(value)]
        for name in reads:
            graph.input.append(_info(name, values[name].dtype, values[name].ndim))
        for layer in layers:
            for name, value in zip(_names(layer), layer.node.inputs[3:5], strict=True):
                assert value is not None and value.dtype is not None
                graph.input.append(_info(name, value.dtype, layer.stored.mean.ndim))
        names = (value.name for value in level.live_values if value in made)
        graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        self.loaded.external.fill(graph)
        return _Session(model, reads, layers)

    def _add_constants(self, graph: GraphProto, values: Iterable[Value]) -> None:
        """The initializers that the level reads, and the nodes that make constants."""
        wanted, nodes = list(values), set[Node]()
        names = set()
        while wanted:
            value = wanted.pop()
            if value.producer is None:
                names.add(value.name)
            elif value.producer not in nodes:
                nodes.add(value.producer)
                wanted += self._reads(value.producer)
        main = self.loaded.proto.graph
        graph.initializer.extend(tensor for tensor in main.initializer if tensor.name in names)
        graph.sparse_initializer.extend(entry for entry in main.sparse_initializer if entry.values.name in names)
        graph.node.extend(node.handle for node in self.graphs.scopes[0].nodes if node in nodes)


class _Session:
    """One level in onnxruntime."""

    def __init__(self, model: ModelProto, reads: list[str], layers: list[Layer]) -> None:
        self.reads, self.layers = reads, layers
        try:
            self._session = Session(model.SerializeToString(), "disable", frugal=True)
        except Exception as error:  # onnxruntime raises many kinds
            raise InconclusiveError(f"onnxruntime can't load the model ({one_line(error)})") from None

    def run(self, given: Mapping[str, NDArray[Any]]) -> Values:
        """The values that the level leaves."""
        return dict(zip(self._session.outputs, self._session.run(given), strict=True))


def _names(layer: Layer) -> tuple[str, str]:
    """Return what the fed statistics of a layer are called."""
    output = layer.node.output.name
    return f"{output}/bnfold mean", f"{output}/bnfold var"


def _with_fed_statistics(node: Node, layer: Layer | None) -> NodeProto:
    """A node for the run: a BatchNormalization at inference, that reads the statistics that are fed."""
    copy = NodeProto()
    copy.CopyFrom(node.handle)
    if layer is not None:
        normalise_by_stored(copy, node.opset)
        copy.input[3], copy.input[4] = _names(layer)
    return copy


def _info(name: str, dtype: np.dtype[Any], ndim: int) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [None] * ndim)


def _input(loaded: LoadedModel, value: Value) -> Input:
    info = next(info for info in loaded.proto.graph.input if info.name == value.name)
    tensor = info.type.tensor_type
    dtype = np_dtype(tensor.elem_type) if info.type.HasField("tensor_type") else None
    if dtype is None:
        raise InconclusiveError(f"the input {value.name!r} is no tensor of numbers", "its data can't be given")
    dims = tensor.shape.dim
    rows = dims[0].dim_value if dims and dims[0].HasField("dim_value") and dims[0].dim_value > 0 else None
    if not tensor.HasField("shape"):
        return Input(value.name, dtype, None)
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)
    return Input(value.name, dtype, rows, shape)
