"""Lists of sizes that a model computes from shapes, as far as they are known before it runs.

``Shape -> Gather -> Concat`` of a value of shape ``[N, 64, T]`` is no constant, but its entry for the channels is. Each
entry here is a number, or a symbol where it is a dimension of that name, or None. Integers are computed exactly, floats
in their own type, as every runtime does (add, multiply, divide and floor are exact up to one rounding).

Nodes are read in topological order, each once: nothing recurses. A result is kept only if it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.numerics.rounding import is_float

Entries = NDArray[np.object_]
"""An array of numbers, symbols and None."""

LONGEST = 1024
"""Entries of a list of sizes; tables of numbers are longer."""

FEWEST = 8
"""Entries of a list of floats: one scale per axis. A longer one is a weight."""

MOST_ENTRIES = 2**20
"""Entries that are computed for one model, in all: a few Concats could double a list again and again."""


class ShapeValues:
    """Hold the lists of sizes of one model. Give each node to ``read``, producers first."""

    def __init__(self) -> None:
        self._known: dict[Value, Entries] = {}
        self._left = MOST_ENTRIES

    def of(self, value: Value | None) -> Entries | None:
        """Return the entries of a small value, as far as they are known; None if nothing is."""
        if value is None:
            return None
        known = self._known.get(value)
        if known is not None or value.tensor is None or value.overridable or value.tensor_type is None:
            return known
        dtype, shape = value.tensor_type
        if dtype is None or not (is_float(dtype) or dtype.kind in "iub"):
            return None
        if prod(shape) > (FEWEST if is_float(dtype) else LONGEST):
            return None
        return self._keep(value, value.tensor().astype(object))

    def computed(self, value: Value | None) -> Entries | None:
        """Return the entries of a value that a node computes; None for what is stored."""
        return None if value is None else self._known.get(value) if value.tensor is None else None

    def read(self, node: Node) -> None:
        """Compute the entries of a node's output where that is possible."""
        function = _FUNCTIONS.get(node.op)
        if function is None or len(node.live_outputs) != 1 or self._left <= 0:
            return
        value = node.output
        if value.tensor is not None or value.rank is None or value.rank > 2:
            return
        inputs = [self.of(used) for used in node.inputs]
        if node.op not in ("Shape", "Size") and any(
            known is None and used is not None for known, used in zip(inputs, node.inputs, strict=True)
        ):
            return
        try:
            found = function(node, inputs)
            if found is not None and found.size <= LONGEST:
                self._keep(value, _in_type(found, value.dtype))
        except (IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError):
            return  # a node that contradicts itself

    def _keep(self, value: Value, entries: Entries) -> Entries:
        self._left -= entries.size
        self._known[value] = entries
        return entries


def _in_type(found: Entries, dtype: np.dtype[Any] | None) -> Entries:
    """Return the entries as the type holds them: what leaves its range is not known."""

    def held(entry: Any) -> Any:
        if entry is None or isinstance(entry, str):
            return entry if dtype is not None and dtype.kind in "iu" else None
        if dtype is None:
            return None
        if dtype.kind == "b":
            return bool(entry)
        if is_float(dtype):
            return float(np.asarray(entry, np.float64).astype(dtype))
        limits = np.iinfo(dtype)
        return int(entry) if math.isfinite(entry) and limits.min <= int(entry) <= limits.max else None

    return _array([held(entry) for entry in found.reshape(-1)], found.shape)


def _array(entries: Sequence[Any], shape: tuple[int, ...]) -> Entries:
    made = np.empty(len(entries), object)
    made[:] = entries
    return made.reshape(shape)


def known(entries: Entries | None) -> bool:
    """Return True if every entry is a number."""
    return entries is not None and not any(entry is None or isinstance(entry, str) for entry in entries.flat)


def whole(entries: Entries | None) -> list[int]:
    """Return a list of integers. Raises ValueError if one of them is not known."""
    if entries is None or not known(entries):
        raise ValueError("it is not known")
    return [int(entry) for entry in entries.reshape(-1)]


def _shape(node: Node, _: list[Entries | None]) -> Entries | None:
    source = node.inputs[0]
    if source is None or source.shape is None:
        return None
    dims = list(source.shape)[node.attr("start", 0) : node.attr("end", len(source.shape))]
    return _array(dims, (len(dims),))


def _size(node: Node, _: list[Entries | None]) -> Entries | None:
    source = node.inputs[0]
    shape = None if source is None else source.shape
    sizes = [size for size in shape or () if isinstance(size, int)]
    return None if shape is None or len(sizes) < len(shape) else _array([prod(sizes)], ())


def _same(_: Node, inputs: list[Entries | None]) -> Entries | None:
    return inputs[0]


def _view(node: Node, inputs: list[Entries | None]) -> Entries | None:
    """Reshape, Squeeze, Unsqueeze, Flatten: the shape is that of the output, all but one length of which is known."""
    data, shape = inputs[0], node.output.shape
    assert data is not None and shape is not None
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return data.reshape(sizes)


def _transpose(node: Node, inputs: list[Entries | None]) -> Entries | None:
    assert inputs[0] is not None
    return inputs[0].transpose(node.attr("perm"))


def _gather(node: Node, inputs: list[Entries | None]) -> Entries | None:
    data, indices = inputs
    assert data is not None and indices is not None
    picked = np.asarray(whole(indices), np.int64).reshape(indices.shape)
    return np.asarray(np.take(data, picked, axis=node.attr("axis", 0)), object)


def _slice(node: Node, inputs: list[Entries | None]) -> Entries | None:
    data = inputs[0]
    assert data is not None
    if node.opset < 10:
        starts, ends, axes, steps = node.attr("starts"), node.attr("ends"), node.attr("axes"), None
    else:
        starts, ends, axes, steps = (None if given is None else whole(given) for given in [*inputs[1:], None, None][:4])
    cut = [slice(None)] * data.ndim
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        cut[axes[place] if axes else place] = slice(start, end, steps[place] if steps else 1)
    return data[tuple(cut)]


def _concat(node: Node, inputs: list[Entries | None]) -> Entries | None:
    return np.concatenate([part for part in inputs if part is not None], axis=node.attr("axis", 1))


def _of_shape(node: Node, inputs: list[Entries | None]) -> Entries | None:
    shape, filler = whole(inputs[0]), node.attr("value")
    if prod(shape) > LONGEST or min(shape, default=0) < 0 or len(shape) > 2:
        return None
    return np.full(shape, 0 if filler is None else np.asarray(filler).reshape(-1)[0].item(), object)


def _expand(_: Node, inputs: list[Entries | None]) -> Entries | None:
    data, shape = inputs[0], whole(inputs[1])
    assert data is not None
    if prod(shape) * data.size > LONGEST:
        return None
    return np.array(np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape))))


def _range(node: Node, inputs: list[Entries | None]) -> Entries | None:
    (start,), (limit,), (step,) = (whole(entries) for entries in inputs)
    if node.output.dtype is None or node.output.dtype.kind not in "iu" or abs(limit - start) > LONGEST * abs(step):
        return None
    made = list(range(start, limit, step))
    return _array(made, (len(made),))


def _product(node: Node, inputs: list[Entries | None]) -> Entries | None:
    """ReduceProd over everything."""
    assert inputs[0] is not None
    if inputs[0].ndim != 1 or node.output.rank != node.attr("keepdims", 1):
        return None
    return _array([prod(whole(inputs[0]))], (1,) * node.attr("keepdims", 1))


def _each(function: Callable[..., Any]) -> Callable[[Node, list[Entries | None]], Entries]:
    """Apply a function entry by entry, with the operands broadcast."""

    def apply(_: Node, inputs: list[Entries | None]) -> Entries:
        operands = [part for part in inputs if part is not None]
        shape = np.broadcast_shapes(*(part.shape for part in operands))
        if prod(shape) > LONGEST:
            raise ValueError("it is no list of sizes")
        entries = [
            function(*row) for row in zip(*(np.broadcast_to(part, shape).flat for part in operands), strict=True)
        ]
        return _array(entries, shape)

    return apply


def _numbers(function: Callable[..., Any], neutral: float | None = None) -> Callable[..., Entries]:
    """Arithmetic: known where every operand is; a symbol beside the ``neutral`` number stays what it is."""

    def compute(*operands: Any) -> Any:
        if all(isinstance(n, int | float) for n in operands):
            return function(*operands)
        if len(operands) == 2 and neutral is not None and operands[1] == neutral:
            return operands[0]
        return None

    return _each(compute)


def _divide(first: float, second: float) -> float | None:
    """Return a quotient; of integers a whole one, cut towards zero as ONNX wants it."""
    if isinstance(first, int) and isinstance(second, int) and second:
        quotient = abs(first) // abs(second)
        return quotient if (first < 0) == (second < 0) else -quotient
    return first / second if second else None


def _remainder(first: float, second: float) -> float | None:
    return first % second if isinstance(first, int) and isinstance(second, int) and first >= 0 < second else None


def _compare(first: Any, second: Any) -> bool | None:
    """Return whether two are equal; a dimension is never negative."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, str) and isinstance(other, int) and other < 0:
            return False
    return first == second if isinstance(first, int | float) and isinstance(second, int | float) else None


_FUNCTIONS: dict[str, Callable[[Node, list[Entries | None]], Entries | None]] = {
    "Shape": _shape,
    "Size": _size,
    **dict.fromkeys(("Identity", "Cast"), _same),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _view),
    "Transpose": _transpose,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "ConstantOfShape": _of_shape,
    "Expand": _expand,
    "Range": _range,
    "ReduceProd": _product,
    "Where": _each(lambda test, yes, no: None if test is None else yes if test else no),
    "Equal": _each(_compare),
    "Add": _numbers(lambda a, b: a + b, 0),
    "Sub": _numbers(lambda a, b: a - b, 0),
    "Mul": _numbers(lambda a, b: a * b, 1),
    "Div": _numbers(_divide, 1),
    "Mod": _numbers(_remainder),
    "Neg": _numbers(lambda a: -a),
    "Abs": _numbers(abs),
    "Floor": _numbers(math.floor),
    "Ceil": _numbers(math.ceil),
    "Min": _numbers(min),
    "Max": _numbers(max),
    "Less": _numbers(lambda a, b: a < b),
    "Greater": _numbers(lambda a, b: a > b),
    "Not": _numbers(lambda a: not a),
}
"""How each operator computes its output from the entries of its inputs."""

COMPUTES_SIZES = frozenset(_FUNCTIONS)
"""Operators that make lists of sizes."""
