"""A subgraph of an ONNX model as a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from bnfold.frontends.onnx.nested import reads
from bnfold.io.load import LoadedModel


def extract(
    model: LoadedModel,
    inputs: Mapping[str, int],
    outputs: Sequence[str],
    shapes: Mapping[str, NDArray[Any]] | None = None,
) -> ModelProto | None:
    """Return the part of a model's main graph that makes ``outputs`` from ``inputs`` (names and element types).

    It holds its weights. A Shape whose result is among the ``shapes`` is a constant in it: what it is the shape of may
    lie anywhere before the part. None if it needs anything else from outside.
    """
    known = shapes or {}
    graph = model.proto.graph
    made = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    held = {tensor.name: tensor for tensor in graph.initializer}
    sparse = {entry.values.name: entry for entry in graph.sparse_initializer}
    picked: set[int] = set()
    weights: dict[str, None] = {}
    constants: dict[str, None] = {}
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name in inputs or name in weights or name in constants:
            continue
        if name in held or name in sparse:
            weights[name] = None
        elif name in made and graph.node[made[name]].op_type == "Shape" and name in known:
            constants[name] = None
        elif name in made:
            if made[name] not in picked:
                picked.add(made[name])
                pending += list(reads(graph.node[made[name]]))
        else:
            return None
    part = ModelProto(ir_version=model.proto.ir_version)
    part.opset_import.extend(model.proto.opset_import)
    part.functions.extend(model.proto.functions)
    part.graph.name = "subgraph"
    part.graph.node.extend(graph.node[index] for index in sorted(picked))
    model.external.fill(part.graph)
    for name, kind in inputs.items():
        part.graph.input.append(helper.make_tensor_value_info(name, kind, None))
    part.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    part.graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in constants)
    for name in weights:
        if name in sparse:
            part.graph.sparse_initializer.append(sparse[name])
            continue
        tensor = part.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(model.external.read(held[name]), name))
        tensor.data_type = held[name].data_type
        if part.ir_version < 4:
            part.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    return part
