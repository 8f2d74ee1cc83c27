"""Constants, wherever they come from: stored tensors and whatever is computed from nothing but constants.

Nothing is evaluated before a fold needs it. Each node is run by onnx's own reference implementation;
arithmetic on floats is done in float64, so that a weight that is computed on the way is rounded once, at
the end. What a runtime makes of it, which rounds after every operator, is computed beside it: where the two are not
one number up to rounding (a difference of large numbers, an overflow), there is no constant to go by. Explicit stacks
keep chains of any depth off Python's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_value import ConstantValue
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.shape_values import COMPUTES_SIZES, Entries, ShapeValues
from bnfold.ir.shape_values import known as is_known
from bnfold.numerics.dequantize import dequantized, quantized
from bnfold.numerics.rounding import is_float, rounded

MOST_ELEMENTS = 2**28
"""A constant of more elements than this is not computed, whatever the file stores (2 GiB in float64)."""

FEW = 2**24
"""Elements that an evaluation may hold at a time, however little it reads: an Expand of a few bytes asks for any."""

GROWTH = 8
"""How many times the elements that it reads from the file an evaluation may hold, where that is more."""

WORK = 2**27
"""Elements that all evaluations of a model may compute together, however little it stores."""

WORK_GROWTH = 64
"""How many times the elements that are stored for them, where that is more: a fold asks for a weight a few times."""

SMALL = 4096
"""Elements up to which a constant is remembered once it is known."""

REMEMBERED = 2**21
"""Elements of small constants that are remembered at a time, the latest: a file may ask for any number of them."""

PACKED = 21
"""The first of ONNX's element types (4 bits and less) to which runtimes and onnx's reference cast differently."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "Pow", "Exp", "Abs", "Sum"})
MOVING = frozenset(
    {
        "Identity", "Cast", "CastLike", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand",
        "Concat", "Slice", "Gather", "ConstantOfShape", "Shape", "DequantizeLinear", "QuantizeLinear", "Split", "Tile",
    }
)  # fmt: skip
EVALUATED = MOVING | ARITHMETIC
TYPE_ONLY = {("Shape", 0), ("CastLike", 1)}
"""Inputs of which only the type counts: they need not be constant themselves."""


class NotEvaluable(Exception):
    """A constant that can't be computed here: absurdly large, or its node is invalid."""


class Constants:
    """Evaluates values of one model, lazily, and remembers the small results."""

    def __init__(self, sizes: ShapeValues | None = None) -> None:
        self._sizes = sizes or ShapeValues()
        self._known: dict[Value, bool] = {}
        self._small: dict[Value, ConstantValue] = {}
        self._remembered = 0
        self._computed = 0
        self._read: dict[Value, int] = {}
        self._of_sizes: dict[Value, ConstantValue] = {}
        self._refused: dict[Value, str] = {}
        self.parameters: dict[Node, Any] = {}
        self.rounding: dict[Graph, frozenset[Node]] = {}

    def is_constant(self, value: Value | None) -> bool:
        """Return True if the value is the same on every run. Cheap: no data is read."""
        if value is None:
            return False
        for visited in _producers_first(value, self._known):
            self._known[visited] = self._by_inputs(visited)
        return self._known[value]

    def depends_on_overridable(self, value: Value) -> bool:
        """Return True if the value would be constant, were it not for an initializer that a caller may override."""
        return any(visited.overridable for visited in _producers_first(value, {}))

    def evaluate(self, value: Value) -> NDArray[Any]:
        """The data of a constant, in its own type or, where floats were computed with, in float64.

        Raises NotEvaluable.
        """
        if value in self._refused:
            raise NotEvaluable(self._refused[value])
        try:
            known = self._small.get(value) or self._evaluated(value)
            if not known.stable:
                raise NotEvaluable(f"{value.name!r} is another number when it is rounded after every operator")
        except NotEvaluable as error:
            self._refused[value] = str(error)
            raise
        return known.exact

    def _evaluated(self, value: Value) -> ConstantValue:
        """One value, by all that it is computed from."""
        order = list(_producers_first(value, self._small, self._of_sizes))
        held = _Held(order, self._small, self._of_sizes)
        for visited in order:
            if visited.tensor and visited.tensor_type:
                self._read[visited] = prod(visited.tensor_type[1])
            elif self._computed > WORK + WORK_GROWTH * sum(self._read.values()):
                raise NotEvaluable("the model computes far more constants than it stores")
            known = held.add(visited)
            self._computed += 0 if visited.tensor else known.size
            if known.exact.size <= SMALL:
                self._remember(visited, known)
        return known

    def _remember(self, value: Value, known: ConstantValue) -> None:
        self._small[value] = known
        self._remembered += known.size
        while self._remembered > REMEMBERED:
            self._remembered -= self._small.pop(next(iter(self._small))).size

    def entries(self, value: Value | None) -> Entries | None:
        """Return a list of sizes as far as it is known; None if nothing is."""
        if value is not None and value.dtype is not None:  # which has shapes inferred, and with them sizes
            return self._sizes.of(value)
        return None

    def _by_inputs(self, value: Value) -> bool:
        """Return True for what is computed from constants alone, or a list of sizes that is known all the same."""
        if value.tensor is not None:
            return not value.overridable
        if self._from_constants(value):
            return True
        if value.producer is None or value.producer.op not in COMPUTES_SIZES or value.dtype is None:
            return False
        entries = self._sizes.computed(value)
        if entries is None or not is_known(entries):
            return False
        data = np.asarray(entries.reshape(-1).tolist(), value.dtype).reshape(entries.shape)
        self._of_sizes[value] = ConstantValue(data, data)
        return True

    def _from_constants(self, value: Value) -> bool:
        node = value.producer
        if node is None or value.is_input or node.op not in MOVING | ARITHMETIC:
            return False
        if node.op == "Shape" and not _static(node.inputs[0]):
            return False
        if node.op == "CastLike" and (node.inputs[1] is None or node.inputs[1].dtype is None):
            return False
        if node.op in ("Cast", "CastLike") and _packed(node):
            return False
        return all(self._known[used] for used in _needed(node))


class _Held:
    """What an evaluation holds: each result until its last consumer has it, and together no more than the budget."""

    def __init__(
        self, order: list[Value], small: Mapping[Value, ConstantValue], sizes: Mapping[Value, ConstantValue]
    ) -> None:
        self._sizes = sizes
        producers = [value.producer for value in order if not value.tensor and value.producer and value not in sizes]
        self._consumers = Counter(used for node in producers for used in _needed(node))
        self._results = {used: small[used] for used in self._consumers if used in small}
        stored = sum(prod(value.tensor_type[1]) for value in order if value.tensor and value.tensor_type)
        self._budget = max(FEW, GROWTH * stored) - sum(known.size for known in self._results.values())

    def add(self, value: Value) -> ConstantValue:
        """Compute, or read, the next value. Raises NotEvaluable."""
        if value.tensor:
            data = value.tensor()
            known = ConstantValue(data, data)
        elif value in self._sizes:
            known = self._sizes[value]
        else:
            assert value.producer is not None
            known = self._run(value.producer, value)
            for used in _needed(value.producer):
                self._consumers[used] -= 1
                if not self._consumers[used]:
                    self._budget += self._results.pop(used).size
        self._results[value] = known
        self._budget -= known.size
        return known

    def _run(self, node: Node, value: Value) -> ConstantValue:
        source = node.inputs[0]
        if node.op == "Shape":
            assert source is not None
            shape = np.asarray(source.shape, np.int64)
            part = shape[node.attr("start", 0) : node.attr("end", len(shape))]
            return ConstantValue(part, part)
        inputs = [None if v is None else self._results.get(v) for v in node.inputs]
        stored = [None if known is None else known.stored for known in inputs]
        one = all(known is None or known.exact is known.stored for known in inputs)
        budget = self._budget if one else self._budget // 2
        made = _owned(_evaluated(node, value, [None if k is None else k.exact for k in inputs], stored, budget))
        other = made if one else _owned(_evaluated(node, value, stored, stored, budget))
        if node.op in ARITHMETIC | {"DequantizeLinear"}:
            floats = [data.dtype for data in stored if data is not None and is_float(data.dtype)]
            other = rounded(other, floats[0]) if floats and floats[0] != other.dtype else other
        return ConstantValue(made, other)


def _owned(data: NDArray[Any]) -> NDArray[Any]:
    """A result that keeps nothing else alive: a slice would keep all that it is cut from."""
    whole = data.base
    return data.copy() if isinstance(whole, np.ndarray) and whole.nbytes > data.nbytes else data


def _evaluated(
    node: Node, value: Value, inputs: list[NDArray[Any] | None], stored: list[NDArray[Any] | None], budget: int
) -> NDArray[Any]:
    """One node, arithmetic on floats in float64; ``stored`` has the types of its inputs. Raises NotEvaluable."""
    refuse_absurd(node, inputs, budget)
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
    if node.op == "DequantizeLinear":
        return _dequantized(node, inputs)
    if node.op == "QuantizeLinear":
        return _quantized(node, value, inputs, stored)
    return evaluate_node(node, inputs)[node.outputs.index(value)]


def _packed(node: Node) -> bool:
    """Return True for a cast to a type of fewer than eight bits."""
    from onnx import helper

    like = node.inputs[1] if node.op == "CastLike" else None
    to = node.attr("to", 1) if like is None or like.dtype is None else helper.np_dtype_to_tensor_dtype(like.dtype)
    return bool(to >= PACKED)


def _needed(node: Node) -> list[Value]:
    """The inputs whose data an evaluation reads."""
    return [value for index, value in enumerate(node.inputs) if value is not None and (node.op, index) not in TYPE_ONLY]


def _producers_first(value: Value, done: Any, leaves: Any = ()) -> Iterator[Value]:
    """``value`` and what it is computed from, inputs before outputs, each once, but not what is ``done``.

    What is computed from ``leaves`` stops there.
    """
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
            if current.tensor is None and node is not None and current not in leaves and node.op in EVALUATED:
                stack.extend((used, False) for used in _needed(node))


def _static(value: Value | None) -> bool:
    return value is not None and value.shape is not None and all(isinstance(n, int) for n in value.shape)


def refuse_absurd(node: Node, inputs: list[NDArray[Any] | None], budget: int) -> None:
    """Keep a small file from asking for a huge tensor, or for many large ones in a row. Raises NotEvaluable."""
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
        axis = held[0].shape[node.attr("axis", 0)] if held[0].ndim else 1
        size = float(held[0].size) / max(axis, 1) * float(held[-1].size)
    else:
        size = float(sum(data.size for data in held))
    if size > min(budget, MOST_ELEMENTS):
        raise NotEvaluable(f"{node.label} asks for {size:.3g} elements")


def _dequantized(node: Node, inputs: list[NDArray[Any] | None]) -> NDArray[Any]:
    quantized, scale, zero = (*inputs, None)[:3]
    if quantized is None or scale is None:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} lacks an input")
    try:
        return dequantized(quantized, scale, zero, node.attr("axis", 1), node.attr("block_size", 0))
    except (ValueError, IndexError, TypeError) as error:
        raise NotEvaluable(f"DequantizeLinear {node.name!r} can't be evaluated: {error}") from error


def _quantized(
    node: Node, value: Value, inputs: list[NDArray[Any] | None], stored: list[NDArray[Any] | None]
) -> NDArray[Any]:
    values, scale, zero = (*inputs, None)[:3]
    if values is None or scale is None or stored[0] is None or not is_float(stored[0].dtype):
        raise NotEvaluable(f"QuantizeLinear {node.name!r} quantizes no floats")
    dtype = zero.dtype if zero is not None else value.dtype or np.dtype(np.uint8)
    if dtype.kind not in "iu" and "int" not in dtype.name:
        raise NotEvaluable(f"QuantizeLinear {node.name!r} makes {dtype}")
    try:
        values = rounded(values, stored[0].dtype)
        return quantized(values, scale, zero, dtype, node.attr("axis", 1), node.attr("block_size", 0))
    except (ValueError, IndexError, TypeError) as error:
        raise NotEvaluable(f"QuantizeLinear {node.name!r} can't be evaluated: {error}") from error


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
    except MemoryError:
        raise  # says nothing about the node
    except Exception as error:  # an invalid node may raise anything at all
        raise NotEvaluable(f"{node.label} can't be evaluated: {error}") from error
