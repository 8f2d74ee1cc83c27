"""The range of an integer or boolean input, inferred from the nodes that read it.

An index lies inside what it indexes, whatever copies, moves or shifts it on the way there. Where an input is no index
(a mask, a flag), 0 and 1 are tried, and what it is compared with; 8-bit integers (an image) over all of their type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value

INDEXING = {
    "Gather": (0, 1), "GatherElements": (0, 1), "GatherND": (0, 1), "ScatterElements": (0, 1), "ScatterND": (0, 1),
    "embedding": (0, 1), "index_select": (0, 1), "gather": (0, 1), "index": (0, None), "embedding_bag": (0, 1),
    "scatter": (0, 1), "scatter_add": (0, 1), "index_add": (0, 1), "index_copy": (0, 1), "take_along_dim": (0, 1),
}  # fmt: skip
"""Operators by name, of ONNX and of ATen: the place of what is indexed, and of the index (None: any place behind)."""

MOVING = frozenset(
    {
        "Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split",
        "Expand", "Tile", "Concat", "Gather", "GatherElements", "GatherND",
        "clone", "contiguous", "alias", "detach", "_to_copy", "to", "view", "reshape", "flatten", "squeeze",
        "unsqueeze", "transpose", "permute", "t", "slice", "select", "split", "split_with_sizes", "chunk", "unbind",
        "expand", "expand_as", "repeat", "tile", "cat", "stack", "narrow", "index_select", "gather", "flip", "roll",
    }
)  # fmt: skip
"""Operators whose integer results are entries of what they read."""

SIZES = {
    "Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Tile": (1,), "TopK": (1,),
    "Resize": (3,), "Slice": (1, 2, 4),
}  # fmt: skip
"""Operators by the places of the inputs that say how large something is: 1 is tried."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

COMPARING = frozenset({"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "eq", "ne", "gt", "lt", "ge", "le"})

MOST_FOLLOWED = 10_000
"""Values that are followed from one input, at most."""


@dataclass(frozen=True)
class InputRange:
    """The smallest and the largest value that an input is given, and why. ``binding``: the model allows no others."""

    low: int
    high: int
    reason: str
    binding: bool = False


@dataclass(frozen=True)
class _Shifted:
    """A value whose entries are ``scale * input + offset``, for offsets from ``low`` to ``high``."""

    value: Value
    scale: int = 1
    low: int = 0
    high: int = 0

    def bounded(self, least: int, most: int, reason: str, *, binding: bool = False) -> InputRange:
        """Return what keeps the value between two bounds, for each of the offsets."""
        low, high = (least - self.low) / self.scale, (most - self.high) / self.scale
        low, high = (low, high) if self.scale > 0 else (high, low)
        return InputRange(ceil(low), floor(high), reason, binding)


def inferred_ranges(graph: Graph) -> dict[str, InputRange]:
    """Return the range of each integer or boolean input of the main graph, by name, where one can be inferred."""
    found = {
        value.name: _range(value) for value in graph.inputs if value.dtype is not None and value.dtype.kind in "iub"
    }
    return {name: each for name, each in found.items() if each is not None}


def _range(value: Value) -> InputRange | None:
    """Return what all readers of an input allow; None where that is nothing."""
    dtype = value.dtype
    assert dtype is not None
    if dtype.kind == "b":
        return InputRange(0, 1, "both truth values")
    limits = np.iinfo(dtype)
    bounds = list(_bounds(value))
    binding = [bound for bound in bounds if bound.binding]
    if binding:
        low, high = max(bound.low for bound in binding), min(bound.high for bound in binding)
        low, high = max(low, int(limits.min)), min(high, int(limits.max))
        tightest = min(binding, key=lambda bound: bound.high)
        return InputRange(low, high, tightest.reason, True) if low <= high else None
    if dtype.itemsize == 1:
        return InputRange(int(limits.min), int(limits.max), f"all values of {dtype}")
    low, high = min((0, *(bound.low for bound in bounds))), max((1, *(bound.high for bound in bounds)))
    reason = bounds[0].reason if (low, high) != (0, 1) else "it indexes nothing"
    return InputRange(max(low, int(limits.min)), min(high, int(limits.max)), reason)


def _bounds(value: Value) -> Iterator[InputRange]:
    """Yield what each consumer says of an input, behind copies, moves and shifts too."""
    pending = [_Shifted(value)]
    seen = {pending[0]}
    while pending and len(seen) < MOST_FOLLOWED:
        shifted = pending.pop()
        for node in dict.fromkeys(shifted.value.consumers):
            yield from _read(node, shifted)
            for after in _followed(node, shifted):
                if after not in seen and after.value.dtype is not None and after.value.dtype.kind in "iu":
                    seen.add(after)
                    pending.append(after)


def _read(node: Node, shifted: _Shifted) -> Iterator[InputRange]:
    op, value = _operator(node), shifted.value
    places = [place for place, source in enumerate(node.inputs) if source is value]
    if op in INDEXING:
        held, index = INDEXING[op]
        if any(place == index or (index is None and place > held) for place in places):
            size = _indexed(node, op)
            reason = f"{node.label} looks up one of {size}" if size is not None else f"{node.label} looks it up"
            yield shifted.bounded(0, (size or 1) - 1, reason, binding=True)
    elif op == "OneHot" and 0 in places:
        depth = _constant(node.input(1))
        size = 1 if depth is None or depth.size != 1 else int(depth.reshape(-1)[0])
        yield shifted.bounded(0, size - 1, f"{node.label} has {size} classes", binding=True)
    elif op in RECURRENT and 4 in places:
        source = node.input(0)
        time = source.shape[0] if source is not None and source.shape else None
        yield shifted.bounded(1, time if isinstance(time, int) else 1, f"{node.label} has so many steps", binding=True)
    elif any(place in SIZES.get(op, ()) for place in places):
        yield shifted.bounded(1, 1, f"it is a size in {node.label}", binding=True)
    elif op in COMPARING:
        other = _other_constant(node, value)
        if other is not None and other.size and np.isfinite(other).all():
            yield shifted.bounded(int(other.min()), int(other.max()), f"{node.label} compares it")


def _followed(node: Node, shifted: _Shifted) -> Iterator[_Shifted]:
    """Yield what a node makes of a value's entries, where each is one of them, shifted or scaled."""
    op = _operator(node)
    if op in MOVING and (op in ("Concat", "cat", "stack") or node.input(0) is shifted.value):
        for made in node.live_outputs:
            yield _Shifted(made, shifted.scale, shifted.low, shifted.high)
    elif op in ("Add", "Sub", "Mul", "Neg"):
        other = _other_constant(node, shifted.value) if op != "Neg" else np.asarray(-1)
        if other is None or other.size == 0 or other.dtype.kind not in "iuf" or (other != np.rint(other)).any():
            return
        low, high = int(other.min()), int(other.max())
        scale, first, last = shifted.scale, shifted.low, shifted.high
        if op == "Add":
            yield _Shifted(node.output, scale, first + low, last + high)
        elif op == "Sub" and node.input(0) is shifted.value:
            yield _Shifted(node.output, scale, first - high, last - low)
        elif op == "Sub":
            yield _Shifted(node.output, -scale, low - last, high - first)
        elif low == high and low != 0:
            ends = first * low, last * low
            yield _Shifted(node.output, scale * low, min(ends), max(ends))


def _operator(node: Node) -> str:
    """Return an operator's name, of ATen's without its namespace and overload."""
    return node.op.removeprefix("torch::aten.").partition(".")[0] if node.op.startswith("torch::") else node.op


def _indexed(node: Node, op: str) -> int | None:
    """Return how many entries an index may take: along its axis, or the fewest of any where that is not known."""
    data = node.input(INDEXING[op][0])
    shape = None if data is None else data.shape
    if not shape:
        return None
    axis: Any = {"embedding": 0, "embedding_bag": 0}.get(op)
    if op in ("Gather", "GatherElements", "ScatterElements"):
        axis = node.attr("axis", 0)
    elif axis is None and (given := _setting(node, "dim")).lstrip("-").isdigit():
        axis = int(given)
    sizes = shape if axis is None else [shape[axis]]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    return min(known) if len(known) == len(sizes) else None


def _other_constant(node: Node, value: Value) -> Any:
    """Return the constant beside ``value`` among the two inputs of a node, in ATen perhaps in its settings."""
    others = [source for source in node.inputs if source is not value]
    if len(others) == 1:
        return _constant(others[0])
    try:
        return None if others else np.asarray(float(_setting(node, "other")))
    except ValueError:
        return None


def _setting(node: Node, name: str) -> str:
    """Return an argument of an ATen call as text; empty where it has none of this name."""
    settings = node.settings if isinstance(node.settings, tuple) else ()
    return next((str(entry[1]) for entry in settings if isinstance(entry, tuple) and entry[0] == name), "")


def _constant(value: Value | None) -> Any:
    """Return a constant's data; None for anything else, and for one that can't be computed here."""
    if value is None or not value.graph.constants.is_constant(value):
        return None
    try:
        return np.asarray(value.graph.constants.evaluate(value))
    except NotEvaluable:
        return None
