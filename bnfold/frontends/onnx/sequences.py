"""Parts of a tensor that an exporter takes out of a sequence: SplitToSequence and SequenceAt, read as Slices.

torch's exporter writes ``torch.split`` so. Where sizes and positions are constants and nothing else reads the sequence,
each SequenceAt is a Slice of what was split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.frontends.onnx.nested import bodies, reads
from bnfold.ir.graph import Graph, Value

MOST_PARTS = 4096
"""Entries of a list of sizes that is looked at."""


@dataclass(frozen=True)
class Part:
    """What a SequenceAt takes: entries of the value ``source`` from ``start`` to ``end`` along ``axis``."""

    source: str
    start: int
    end: int
    axis: int

    def bounds(self, name: str) -> dict[str, NDArray[np.int64]]:
        """Return starts, ends and axes of the Slice that makes ``name``, under names of their own."""
        numbers = {"starts": self.start, "ends": self.end, "axes": self.axis}
        return {f"{name} {key}": np.array([number], np.int64) for key, number in numbers.items()}


def parts_of_sequences(graph: GraphProto) -> dict[str, Part]:
    """Return what each such SequenceAt of a graph takes, by the name of its output."""
    splits = {node.output[0]: node for node in graph.node if _is(node, "SplitToSequence") and all(_pair(node))}
    if not splits:
        return {}
    held = _constants(graph)
    users: dict[str, list[NodeProto]] = {name: [] for name in splits}
    for node in graph.node:
        for name in set(reads(node)) & splits.keys():
            users[name].append(node)
    found: dict[str, Part] = {}
    for name in splits.keys() - {info.name for info in graph.output}:
        axis = next((a.i for a in splits[name].attribute if a.name == "axis"), 0)
        taken = [(_bounds(held, splits[name], node) if _is(node, "SequenceAt") else None) for node in users[name]]
        for node, bounds in zip(users[name], taken, strict=True):
            if bounds is not None and None not in taken:
                found[node.output[0]] = Part(splits[name].input[0], *bounds, axis)
    return found


def _bounds(held: Mapping[str, NDArray[Any]], split: NodeProto, node: NodeProto) -> tuple[int, int] | None:
    """Return from where to where a SequenceAt takes entries; None where sizes or position are not known."""
    sizes, place = held.get(_pair(split)[1]), held.get(_pair(node)[1])
    if sizes is None or place is None or place.size != 1 or (sizes < 0).any():
        return None
    at = int(place.item())
    if sizes.ndim == 0:  # parts of one size, the last one perhaps smaller
        return (at * int(sizes), (at + 1) * int(sizes)) if at >= 0 and sizes > 0 else None
    ends = np.cumsum(sizes)
    return (int(ends[at] - sizes[at]), int(ends[at])) if -sizes.size <= at < sizes.size else None


def read_as_slices(graph: Graph, sees: Mapping[str, Value]) -> None:
    """Let those SequenceAts be Slices; the SplitToSequence stays beside, and nothing reads it any more."""
    for name, part in parts_of_sequences(graph.handle).items():
        node, source = sees[name].producer, sees[part.source]
        if node is None or source.graph is not graph or node.inputs[0] is None:
            continue
        node.inputs[0].consumers.remove(node)
        source.consumers.append(node)
        node.op, node.attrs, node.inputs = "Slice", {}, [source]
        for key, data in part.bounds(name).items():
            value = Value(key, graph, consumers=[node], tensor_type=(data.dtype, data.shape))
            value.tensor = partial(np.asarray, data)
            node.inputs.append(value)


def write_as_slices(graph: GraphProto) -> None:
    """Write the same into a copy of a graph that shape inference alone reads, in place."""
    parts = parts_of_sequences(graph)
    for node in graph.node:
        for _, body in bodies(node):
            write_as_slices(body)
        part = parts.get(node.output[0]) if node.output and node.op_type == "SequenceAt" else None
        if part is not None:
            bounds = part.bounds(node.output[0])
            graph.initializer.extend(numpy_helper.from_array(data, name) for name, data in bounds.items())
            node.CopyFrom(helper.make_node("Slice", [part.source, *bounds], list(node.output)))


def _is(node: NodeProto, op: str) -> bool:
    return node.op_type == op and node.domain in ("", "ai.onnx") and len(node.output) == 1


def _pair(node: NodeProto) -> tuple[str, str]:
    """The two inputs of a node, empty where one is absent."""
    first, second = [*map(str, node.input), "", ""][:2]
    return first, second


def _constants(graph: GraphProto) -> dict[str, NDArray[Any]]:
    """The small integers that a graph stores, and no caller can change."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for info in graph.input:
        tensors.pop(info.name, None)
    found: dict[str, NDArray[Any]] = {}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" and node.output else ():
            if attribute.name == "value":
                tensors[node.output[0]] = attribute.t
            elif attribute.name in ("value_int", "value_ints"):
                whole = attribute.name == "value_ints"
                found[node.output[0]] = np.asarray(list(attribute.ints) if whole else attribute.i, np.int64)
    for name, tensor in tensors.items():
        kinds = (TensorProto.INT32, TensorProto.INT64)
        if tensor.data_type in kinds and len(tensor.dims) < 2 and all(dim <= MOST_PARTS for dim in tensor.dims):
            if tensor.data_location != TensorProto.EXTERNAL:
                found[name] = numpy_helper.to_array(tensor)
    return found
