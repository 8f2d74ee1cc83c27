"""Constants, wherever they come from: stored tensors and whatever is computed from nothing but constants.

Nothing is evaluated before a fold needs it. Each node is run by onnx's own reference implementation;
arithmetic on floats is done in float64, so that a weight that is computed on the way is rounded once, at
the end. What a runtime makes of it, which rounds after every operator, is computed beside it: where the two are not
one number up to rounding (a difference of large numbers, an overflow), there is no constant to go by. Explicit stacks
keep chains of any depth off Python's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import is_float, rounded, ulp
from bnfold.graph import Graph, Node, Value

MOST_ELEMENTS = 2**28
"""A computed constant that may have more elements than this is not evaluated (2 GiB in float64)."""

SMALL = 4096
"""Elements up to which a constant is remembered once it is known."""

ROUNDINGS = 64
"""How many roundings of the largest entry may lie between a constant and what a runtime makes of it."""

PACKED = 21
"""The first of ONNX's element types (4 bits and less) to which runtimes and onnx's reference cast differently."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Exp", "Abs", "Sum"})
MOVING = frozenset(
    {
        "Identity", "Cast", "CastLike", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand",
        "Concat", "Slice", "Gather", "ConstantOfShape", "Shape", "DequantizeLinear", "Split", "Tile",
    }
)  # fmt: skip
TYPE_ONLY = {("Shape", 0), ("CastLike", 1)}
"""Inputs of which only the type counts: they need not be constant themselves."""


class NotEvaluable(Exception):
    """A constant that can't be computed here: absurdly large, or its node is invalid."""


@dataclass(frozen=True)
class Known:
    """A constant: ``exact``, floats in float64 where they were computed with, and as a runtime has it, ``stored``."""

    exact: NDArray[Any]
    stored: NDArray[Any]

    @property
    def stable(self) -> bool:
        """True where both are the same up to rounding."""
        if self.exact is self.stored:
            return True
        if not is_float(self.exact.dtype):
            return np.array_equal(self.exact, self.stored)
        kept = self.stored.astype(np.float64)
        exact = self.exact.astype(np.float64)
        finite = np.isfinite(exact)
        if (finite != np.isfinite(kept)).any():
            return False
        limit = ROUNDINGS * float(ulp(np.ones(()), self.stored.dtype)) * np.abs(exact[finite]).max(initial=0)
        return bool((np.abs(exact[finite] - kept[finite]) <= limit).all())


class Constants:
    """Evaluates values of one model, lazily, and remembers the small results.

    ``parameters`` and ``rounding`` are for what rules make of constants and ask for again and again.
    """

    def __init__(self) -> None:
        self._known: dict[Value, bool] = {}
        self._small: dict[Value, Known] = {}
        self.parameters: dict[Node, Any] = {}
        self.rounding: dict[Graph, frozenset[Node]] = {}

    def is_constant(self, value: Value | None) -> bool:
        """True if the value is the same on every run. Cheap: no data is read."""
        if value is None:
            return False
        for visited in _producers_first(value, self._known):
            self._known[visited] = self._by_inputs(visited)
        return self._known[value]

    def depends_on_overridable(self, value: Value) -> bool:
        """True if the value would be constant, were it not for an initializer that a caller may override."""
        return any(visited.overridable for visited in _producers_first(value, {}))

    def evaluate(self, value: Value) -> NDArray[Any]:
        """The data of a constant, in its own type or, where floats were computed with, in float64.

        Raises NotEvaluable.
        """
        results: dict[Value, Known] = {}
        for visited in _producers_first(value, self._small):
            if visited.tensor:
                data = visited.tensor()
                known = Known(data, data)
            else:
                known = self._run(visited, results)
            results[visited] = known
            if known.exact.size <= SMALL:
                self._small[visited] = known
        known = results[value] if value in results else self._small[value]
        if not known.stable:
            raise NotEvaluable(f"{value.name!r} is another number when it is rounded after every operator")
        return known.exact

    def _by_inputs(self, value: Value) -> bool:
        node = value.producer
        if value.tensor is not None:
            return not value.overridable
        if node is None or value.is_input or node.op not in MOVING | ARITHMETIC:
            return False
        if node.op == "Shape" and not _static(node.inputs[0]):
            return False
        if node.op == "CastLike" and (node.inputs[1] is None or node.inputs[1].dtype is None):
            return False
        if node.op in ("Cast", "CastLike") and _packed(node):
            return False
        return all(self._known[used] for used in _needed(node))

    def _run(self, value: Value, results: dict[Value, Known]) -> Known:
        node = value.producer
        assert node is not None
        source = node.inputs[0]
        if node.op == "Shape":
            assert source is not None
            shape = np.asarray(source.shape, np.int64)
            part = shape[node.attr("start", 0) : node.attr("end", len(shape))]
            return Known(part, part)
        inputs = [None if v is None else results.get(v) or self._small.get(v) for v in node.inputs]
        stored = [None if known is None else known.stored for known in inputs]
        made = _evaluated(node, value, [None if known is None else known.exact for known in inputs], stored)
        if all(known is None or known.exact is known.stored for known in inputs):
            other = made
        else:
            other = _evaluated(node, value, stored, stored)
        if node.op in ARITHMETIC | {"DequantizeLinear"}:
            floats = [data.dtype for data in stored if data is not None and is_float(data.dtype)]
            other = rounded(other, floats[0]) if floats and floats[0] != other.dtype else other
        return Known(made, other)


def _evaluated(
    node: Node, value: Value, inputs: list[NDArray[Any] | None], stored: list[NDArray[Any] | None]
) -> NDArray[Any]:
    """One node, arithmetic on floats in float64; ``stored`` has the types of its inputs. Raises NotEvaluable."""
    first, kept = inputs[0], stored[0]
    if node.op in ("Cast", "CastLike") and first is not None and kept is not None and value.dtype is not None:
        if is_float(first.dtype) and is_float(value.dtype):
            return rounded(first, value.dtype)
        first = rounded(first, kept.dtype) if is_float(first.dtype) else first  # an integer is not almost another
        if node.op == "CastLike":
            return first.astype(value.dtype)
        inputs = [first]
    if node.op in ARITHMETIC:
        inputs = [data.astype(np.float64) if data is not None and is_float(data.dtype) else data for data in inputs]
    _refuse_absurd(node, inputs)
    if node.op == "DequantizeLinear":
        return _dequantized(node, inputs)
    return evaluate_node(node, inputs)[node.outputs.index(value)]


def _packed(node: Node) -> bool:
    """True for a cast to a type of fewer than eight bits."""
    from onnx import helper

    like = node.inputs[1] if node.op == "CastLike" else None
    to = node.attr("to", 1) if like is None or like.dtype is None else helper.np_dtype_to_tensor_dtype(like.dtype)
    return bool(to >= PACKED)


def _needed(node: Node) -> list[Value]:
    """The inputs whose data an evaluation reads."""
    return [value for index, value in enumerate(node.inputs) if value is not None and (node.op, index) not in TYPE_ONLY]


def _producers_first(value: Value, done: Any) -> Iterator[Value]:
    """``value`` and what it is computed from, inputs before outputs, each once, but not what is ``done``."""
    seen: set[Value] = set()
    stack = [(value, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            yield current
        elif current not in seen and current not in done:
            seen.add(current)
            stack.append((current, True))
            node = current.producer
            if current.tensor is None and node is not None and node.op in MOVING | ARITHMETIC:
                stack.extend((used, False) for used in _needed(node))


def _static(value: Value | None) -> bool:
    return value is not None and value.shape is not None and all(isinstance(n, int) for n in value.shape)


def _refuse_absurd(node: Node, inputs: list[NDArray[Any] | None]) -> None:
    """Keep a small file from asking for a huge tensor. Raises NotEvaluable."""
    held = [data for data in inputs if data is not None]
    if node.op in ("ConstantOfShape", "Tile"):
        size = float(np.prod(np.abs(held[-1].astype(np.float64)))) * (held[0].size if node.op == "Tile" else 1)
    elif node.op in ARITHMETIC | {"Expand"}:
        shapes = [data.shape for data in held]
        if node.op == "Expand":
            shapes[-1] = tuple(int(dim) for dim in held[-1].reshape(-1))
        rank = max(map(len, shapes), default=0)
        full = [(1,) * (rank - len(shape)) + shape for shape in shapes]
        size = float(np.prod([float(max(dims)) for dims in zip(*full, strict=True)]))
    elif node.op == "Gather":
        size = float(np.prod([float(data.size) for data in held]))
    else:
        size = float(sum(data.size for data in held))
    if size > MOST_ELEMENTS:
        raise NotEvaluable(f"{node.op} {node.name!r} asks for {size:.3g} elements")


def dequantized(
    quantized: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, axis: int, block: int
) -> NDArray[Any]:
    """``(q - zero point) * scale``, per tensor, per axis or per block; in float64. Raises ValueError, IndexError.

    The reference implementation knows this operator from opset 19 on only.
    """
    offset = 0.0 if zero is None else spread_scale(zero, quantized.shape, axis, block)
    return np.asarray((quantized.astype(np.float64) - offset) * spread_scale(scale, quantized.shape, axis, block))


def spread_scale(part: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> NDArray[Any]:
    """A scale or zero point in float64, so that it broadcasts against quantized data of ``shape``."""
    part = part.astype(np.float64)
    if block:
        return np.repeat(part, min(block, shape[axis]), axis).take(range(shape[axis]), axis)
    if part.size == 1:
        return part.reshape(())
    return part.reshape([-1 if k == axis % len(shape) else 1 for k in range(len(shape))])


def _dequantized(node: Node, inputs: list[NDArray[Any] | None]) -> NDArray[Any]:
    quantized, scale, zero = (*inputs, None)[:3]
    if quantized is None or scale is None:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} lacks an input")
    try:
        return dequantized(quantized, scale, zero, node.attr("axis", 1), node.attr("block_size", 0))
    except (ValueError, IndexError, TypeError) as error:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} can't be evaluated: {error}") from error


def evaluate_node(node: Node, inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """One node on onnx's reference implementation. Raises NotEvaluable."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    unknown = helper.make_empty_tensor_value_info
    names = ["" if data is None else f"i{k}" for k, data in enumerate(inputs)]
    outputs = [f"o{k}" for k in range(len(node.outputs))]
    attrs = {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for key, value in node.attrs.items()
    }
    proto = helper.make_node(node.op, names, outputs, **attrs)
    feed = {name: data for name, data in zip(names, inputs, strict=True) if name}
    try:
        graph = helper.make_graph([proto], "constant", [unknown(n) for n in feed], [unknown(n) for n in outputs])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)])
        run = ReferenceEvaluator(model)
        return [np.asarray(result) for result in run.run(None, feed)]
    except Exception as error:  # an invalid node may raise anything at all
        raise NotEvaluable(f"{node.op} {node.name!r} can't be evaluated: {error}") from error
