"""Onnx's shape inference, held to a sensible size.

Where it may, it also computes what lists of sizes hold (``data_prop``), and keeps every entry of every result as a
dimension of some 70 bytes: a few Concats that each double a list would take any memory there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from math import prod

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from bnfold.frontends.onnx.ort_shapes import with_plain_operators

MOST_ENTRIES = 2**20
"""Entries that inference may compute; a model that asks for more has its shapes inferred without any."""

LARGE = 4096
"""Bytes above which a tensor is left out of the copy that inference works on."""

OF_A_SHAPE = 16
"""Entries of a Shape's result, generously."""

Key = tuple[str, str]


class _TooMany(Exception):
    """Raised as soon as there are more than MOST_ENTRIES."""


def inferred(skeleton: ModelProto) -> ModelProto:
    """The model with the types and shapes of its values. Onnx raises several kinds of errors for an invalid one.

    The skeleton is a copy: what onnx does not know is put there in other words.
    """
    with_plain_operators(skeleton)
    return onnx.shape_inference.infer_shapes(skeleton, data_prop=_is_small(skeleton))


def _is_small(model: ModelProto) -> bool:
    counting = _Counting({(function.domain, function.name): function for function in model.functions})
    try:
        counting.of_graph(model.graph, {})
    except (_TooMany, RecursionError):
        return False
    return True


class _Counting:
    """Counts entries from above, node by node; calls of functions as often as they are called."""

    def __init__(self, functions: Mapping[Key, FunctionProto]) -> None:
        self.functions, self.total = functions, 0

    def of_graph(self, graph: GraphProto, outer: Mapping[str, int]) -> None:
        """Count what a graph computes, with those nested in it; ``outer`` has the entries of what it sees."""
        known = {**outer, **{info.name: 0 for info in graph.input}}
        known |= {tensor.name: _given(tensor) for tensor in graph.initializer}
        self._of_nodes(graph.node, known)

    def _of_nodes(self, nodes: Iterable[NodeProto], known: dict[str, int]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                    self.of_graph(body, known)
            function = self.functions.get((node.domain, node.op_type))
            if function is not None:
                inner = dict(zip(function.input, (known.get(name, 0) for name in node.input), strict=False))
                self._of_nodes(function.node, inner)
                made = [inner.get(name, 0) for name in function.output]
            else:
                made = [_entries(node, [known.get(name, 0) for name in node.input])] * len(node.output)
                self.total += sum(made)
            if self.total > MOST_ENTRIES:
                raise _TooMany
            known.update(zip(node.output, made, strict=False))


def _given(tensor: TensorProto) -> int:
    """The entries of a list whose data inference is shown."""
    count = prod(tensor.dims)
    return count if len(tensor.dims) < 2 and count * 4 <= LARGE else 0


def _entries(node: NodeProto, inputs: list[int]) -> int:
    """Return how many entries a node's result has at most, as far as inference computes it; 0 where it does not."""
    if node.op_type == "Constant":
        return max((_given(a.t) if a.HasField("t") else len(a.ints) + 1 for a in node.attribute), default=0)
    if node.op_type in ("Shape", "Size"):
        return OF_A_SHAPE
    if not _propagates(node.op_type) or not inputs or not inputs[0]:
        return 0
    return sum(inputs) if node.op_type == "Concat" else max(inputs)


@cache
def _propagates(op: str) -> bool:
    """Return True for an operator whose results onnx computes."""
    return onnx.defs.has(op) and bool(onnx.defs.get_schema(op).has_data_propagation_function)
