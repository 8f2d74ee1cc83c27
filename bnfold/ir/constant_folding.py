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
from bnfold.ir.evaluation import ADDING, ARITHMETIC, EVALUATED, NotEvaluable, evaluated
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.shape_values import COMPUTES_SIZES, Entries, ShapeValues
from bnfold.ir.shape_values import known as is_known
from bnfold.numerics.rounding import is_float, rounded

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

TYPE_ONLY = {("Shape", 0), ("CastLike", 1)}
"""Inputs of which only the type counts: they need not be constant themselves."""


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

    def is_sum(self, value: Value) -> bool:
        """Return True for a constant whose entries were added up: a runtime's are off by roundings of the largest."""
        return any(v.tensor is None and v.producer and v.producer.op in ADDING for v in _producers_first(value, {}))

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
        if node is None or value.is_input or node.op not in EVALUATED:
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
        made = _owned(evaluated(node, value, [None if k is None else k.exact for k in inputs], stored, budget))
        other = made if one else _owned(evaluated(node, value, stored, stored, budget))
        if node.op in ARITHMETIC | {"DequantizeLinear"}:
            dtype = next((data.dtype for data in stored if data is not None and is_float(data.dtype)), other.dtype)
            other = rounded(other, dtype) if is_float(other.dtype) and dtype != other.dtype else other
        return ConstantValue(made, other)


def _owned(data: NDArray[Any]) -> NDArray[Any]:
    """A result that keeps nothing else alive: a slice would keep all that it is cut from."""
    whole = data.base
    return data.copy() if isinstance(whole, np.ndarray) and whole.nbytes > data.nbytes else data


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
