"""Model-local functions: a BatchNorm inside one is folded where it is called, by inlining the call."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

NORMALIZING = "BatchNormalization"

MOST_NODES = 50_000
"""Nodes up to which functions are expanded: a few that call each other twice can stand for any number."""


def batch_norms_inlined(model: ModelProto) -> ModelProto | None:
    """A copy in which every call of a function that holds a BatchNorm, at any depth, is replaced by its body.

    None if there is no such call, or if onnx can't inline it. Calls of other functions stay calls.
    """
    if not model.functions or not expandable(model):
        return None
    holders = _holders(list(model.functions))
    if not holders:
        return None
    from onnx import inliner

    ready = with_defaults(model, holders)
    try:
        copy = inliner.inline_selected_functions(ready, sorted(holders))
    except Exception:  # onnx raises several kinds for functions that it can't inline
        return None
    return None if copy.SerializeToString() == ready.SerializeToString() else copy


def with_defaults(model: ModelProto, selected: Collection[tuple[str, str]] | None = None) -> ModelProto:
    """Return the model, every call of a function with the default values of the attributes that it leaves out.

    onnx's inliner drops them. ``selected`` names the functions by domain and name (None: all). The model itself where
    there is nothing to add.
    """
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in model.functions if f.attribute_proto}
    if selected is not None:
        defaults = {key: values for key, values in defaults.items() if key[:2] in selected}
    if not defaults:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for scope in (copy.graph, *copy.functions):
        for node in _nodes(scope):
            given = {attribute.name for attribute in node.attribute}
            missing = defaults.get((node.domain, node.op_type, node.overload), ())
            node.attribute.extend(attribute for attribute in missing if attribute.name not in given)
    return copy


def expandable(model: ModelProto) -> bool:
    """Return True if the model stays of a sensible size when each call of a function of its own is its body."""
    bodies = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    for start in bodies:
        stack = [(start, False)]
        open_: set[tuple[str, str]] = set()
        while stack:
            key, ready = stack.pop()
            if ready:
                open_.discard(key)
                sizes[key] = _size(bodies[key], sizes)
            elif key in open_:
                return False  # it calls itself
            elif key not in sizes:
                open_.add(key)
                stack.append((key, True))
                stack += [(call, False) for call in dict.fromkeys(_calls(bodies[key])) if call in bodies]
    return _size(model.graph, sizes) <= MOST_NODES


def _calls(scope: FunctionProto | GraphProto) -> Iterator[tuple[str, str]]:
    """Domain and operator of every node of a graph or function, at any depth."""
    return ((node.domain, node.op_type) for node in _nodes(scope))


def _nodes(scope: FunctionProto | GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph or function, at any depth."""
    pending: list[Any] = [scope]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += attribute.graphs


def _size(scope: FunctionProto | GraphProto, sizes: dict[tuple[str, str], int]) -> int:
    return sum(sizes.get(call, 1) for call in _calls(scope))


def _holders(functions: list[FunctionProto]) -> set[tuple[str, str]]:
    """Domain and name of the functions that hold a BatchNormalization or call one that does."""
    holders: set[tuple[str, str]] = set()
    grown = True
    while grown:
        grown = False
        for function in functions:
            key = (function.domain, function.name)
            if key not in holders and any(
                node.op_type == NORMALIZING or (node.domain, node.op_type) in holders for node in function.node
            ):
                holders.add(key)
                grown = True
    return holders
