"""What names tensors without computing with them: annotations of quantization, and how to train a model.

After an edit they may speak of a tensor that is gone, or that holds other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import GraphProto, TrainingInfoProto

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.frontends.onnx.nested import bodies
from bnfold.ir.graph import Graph, Value

WHOLE = "GraphCall"
"""The operator of a training step that runs the whole model."""


class Annotations:
    """Watches a model that is edited, if anything in it looks on; ``defined`` gives the names that a graph makes."""

    def __init__(self, graphs: OnnxGraphs, defined: Callable[[GraphProto], set[str]]) -> None:
        self._model, self._defined = graphs.model, defined
        scopes = graphs.scopes
        self._watched = bool(self._model.training_info) or any(scope.handle.quantization_annotation for scope in scopes)
        self._before = {id(scope.handle): defined(scope.handle) for scope in scopes} if self._watched else {}
        self._after: dict[int, set[str]] = {}
        self._main = scopes[0]
        self._changed: dict[int, set[str]] = {}
        self._replaced: set[str] = set()

    def change(self, value: Value) -> None:
        """``value`` holds other numbers than it did."""
        self._changed.setdefault(id(value.graph.handle), set()).add(value.name)

    def replace(self, value: Value, graph: Graph) -> None:
        """A node of ``graph`` reads something else in place of ``value``, which may stay for others."""
        if graph is self._main or value.graph is self._main:
            self._replaced.add(value.name)

    def drop_annotations(self) -> None:
        """Drop the annotations of tensors that are gone or changed; the others keep their bytes."""
        pending: list[tuple[GraphProto, ...]] = [(self._model.graph,)] if self._watched else []
        while pending:
            around = pending.pop()
            graph = around[-1]
            held = graph.quantization_annotation
            for index in reversed(range(len(held))):
                if self._is_stale(held[index].tensor_name, around):
                    del held[index]
            pending += [(*around, body) for node in graph.node for _, body in bodies(node)]

    def drop_training(self) -> bool:
        """Drop how to train the model, all of it, if it speaks of a tensor that is gone or changed; True if it was."""
        entries = self._model.training_info
        graph = self._model.graph
        if not any(
            name == WHOLE or name in self._replaced or self._is_stale(name, (graph,))
            for entry in entries
            for name in _names(entry)
        ):
            return False
        del entries[:]
        return True

    def _is_stale(self, name: str, around: tuple[GraphProto, ...]) -> bool:
        """Return True if what ``name`` meant within the graphs ``around``, the innermost last, is not what it was."""
        for graph in reversed(around):
            if id(graph) not in self._after:
                self._after[id(graph)] = self._defined(graph)
            there = name in self._after[id(graph)]
            if name in self._changed.get(id(graph), ()) or (name in self._before.get(id(graph), ()) and not there):
                return True
            if there:
                return False
        return False


def _names(entry: TrainingInfoProto) -> Iterator[str]:
    """Every tensor that a training step names, and its operator where that runs the model."""
    for binding in (*entry.initialization_binding, *entry.update_binding):
        yield from (binding.key, binding.value)
    pending = [entry.initialization, entry.algorithm]
    while pending:
        graph = pending.pop()
        yield from (info.name for info in graph.output)
        for node in graph.node:
            yield from node.input
            if node.op_type == WHOLE:
                yield WHOLE
            pending += [body for _, body in bodies(node)]
