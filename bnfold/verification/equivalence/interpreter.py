"""Read a network as mathematics: the form of every value, node by node.

The planner is not asked: this never says what may be folded, only what is computed. (How layout operators move a map,
and which branches add up to one convolution, is read off :mod:`bnfold.rules.rule` and
:mod:`bnfold.planner.branch_merging`.) What the operators mean is in
:mod:`bnfold.verification.equivalence.semantics.table`; here is what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import FEW, NotEvaluable, evaluate_node, refuse_absurd
from bnfold.ir.graph import Graphs, Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.rounding import is_float
from bnfold.planner.branch_merging import Merge, merges
from bnfold.rules.forward_transform import forward_transform
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import INCONSISTENT_MODEL
from bnfold.verification.equivalence.abstract_values import (
    LOOSE,
    AbstractValue,
    Array,
    Matched,
    Numbers,
    Scale,
    ValueNumbering,
    aligned,
)
from bnfold.verification.equivalence.attributes import essential
from bnfold.verification.reference.model import RANDOM

FOLDED_AWAY = 2**20
"""Elements up to which a node that reads nothing but constants is evaluated, as simplifiers do."""

HELD = 2**24
"""Elements of computed constants that are held for that, together."""


@dataclass(frozen=True)
class Layer:
    """A linear operator with constant weights: its rows, the type of its weights, the form of ``W x + c``."""

    rows: Callable[[], Numbers]
    dtype: Any
    abstract: AbstractValue


class Interpreter:
    """Reads one model's graphs into ``classes``. ``forms`` holds the form of each value, ``layers`` the linear layers.
    ``merged`` takes sums of parallel branches for the convolution that RepVGG makes of them.

    ``rounds`` says that the model's numbers may be rounded results, so that its weights get error bars.
    """

    rounds = False

    def __init__(self, graphs: Graphs, numbering: ValueNumbering, *, merged: bool = False) -> None:
        self.graphs, self.numbering = graphs, numbering
        self.abstract: dict[Value, AbstractValue] = {}
        self._merges = {merge.target: merge for scope in graphs.scopes if merged for merge in merges(scope)}
        self.pads: dict[int, tuple[int, list[int]]] = {}
        self.clips: dict[int, tuple[AbstractValue, Array, Array]] = {}
        self.cuts: dict[int, tuple[int, dict[int, tuple[int, int, int]]]] = {}
        self.layers: dict[Node, Layer] = {}
        self._data: dict[int, NDArray[Any]] = {}
        self._room = HELD
        self._fingerprints: dict[Value, Hashable] = {}

    def read(self) -> None:
        """Read the main graph and every graph in it."""
        main = self.graphs.scopes[0]
        for value in main.inputs:
            self.abstract[value] = AbstractValue(self.class_of(None, ("input", value.name))[0])
        self._read_nodes(main.nodes)

    def rank(self, value: Value) -> int | None:
        """The number of axes of a value, if it is known."""
        return value.rank

    def is_exact(self, _value: Value | None) -> bool:
        """True if the map of a value is what it is: an original's always is, and its bars say what a fold may cost."""
        return True

    def was(self, _value: Value, _dtype: str) -> bool:
        """True if the value is known to have been held in that type before: nothing is, in an original."""
        return False

    def _read_nodes(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.live_outputs and not all(map(node.graph.constants.is_constant, node.live_outputs)):
                self.read_node(node)

    def read_node(self, node: Node) -> None:
        """Set the forms of a node's outputs."""
        from bnfold.verification.equivalence.semantics.table import SEMANTICS, opaque

        try:
            semantics = opaque if node in rounding_nodes(node.graph) else SEMANTICS.get(node.op, opaque)
            done = semantics(self, node)
        except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
            done = False
        if not done:
            opaque(self, node)
        for value in node.live_outputs:
            if (merge := self._merges.get(value)) is not None:
                self._read_merged(merge)

    def _read_merged(self, merge: Merge) -> None:
        """Take a sum of parallel branches for the one convolution that computes it."""
        from bnfold.verification.equivalence.semantics.linear import conv

        node, values = merge.conv, []
        dtype = np.dtype(np.float64) if node.inputs[1] is None else node.inputs[1].dtype
        for name, data in (("weight", merge.weight), ("bias", merge.bias)):
            value = Value(f"{merge.target.name} merged {name}", node.graph, tensor_type=(dtype, data.shape))
            value.tensor = lambda data=data: data
            values.append(value)
        whole = Node("Conv", node.name, node.opset, node.graph, [node.inputs[0], *values], [merge.target], node.attrs)
        conv(self, whole)

    # --- forms

    def abstract_of(self, value: Value | None) -> AbstractValue:
        """The form of a value; constants have one too."""
        if value is None:
            return AbstractValue(self.class_of(None, ("absent",))[0])
        known = self.abstract.get(value)
        if known is None:
            try:
                data = value.graph.constants.evaluate(value)
                known = self.constant(data, value.dtype, stored=value.tensor is not None)
            except NotEvaluable:  # a constant too large to be computed is known by what makes it
                if value.producer is None:
                    raise
                self.read_node(value.producer)
                known = self.abstract[value]
            self.abstract[value] = known
        return known

    def fingerprint(self, value: Value) -> Hashable:
        """What tells constants apart, bit by bit."""
        known = self._fingerprints.get(value)
        if known is None:
            try:
                data = value.graph.constants.evaluate(value)
            except NotEvaluable:
                return ("made", self.abstract_of(value).base)
            if data.dtype.kind in "OSU":
                return (data.dtype.str, data.shape, repr(data.tolist()))
            digest = blake2b(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data, digest_size=16)
            known = self._fingerprints[value] = (data.dtype.str, data.shape, digest.hexdigest())
        return known

    def constant(self, data: NDArray[Any], dtype: np.dtype[Any] | None, *, stored: bool = False) -> AbstractValue:
        """The form of constant data of a type; the type may decide what others make of it, a zero point's say.

        ``data`` may be in float64 where it was computed.
        """
        if data.dtype.kind in "OSU":
            return AbstractValue(self.class_of(None, ("text", data.shape, repr(data.tolist())))[0])
        floats = is_float(data.dtype)
        plain = data.astype(np.float64) if floats else data.astype(np.int64) if data.dtype.kind in "iub" else data
        digest = blake2b(np.ascontiguousarray(plain).tobytes(), digest_size=16).hexdigest()
        base = self.class_of(None, ("constant", (dtype or data.dtype).name, data.shape, digest))[0]
        size = 0 if stored or base in self._data else data.size
        if data.size <= FOLDED_AWAY and size <= self._room:
            self._data[base] = data
            self._room -= size
        return AbstractValue(base)

    def eps(self, *values: Value | None) -> float:
        """The distance from 1 to the next number of the values' float type."""
        for value in values:
            name = value.dtype.name if value is not None and value.dtype is not None else ""
            if name in _EPS:
                return _EPS[name]
        return _EPS["float32"]

    def precision(self, weight: Value | None, key: Hashable) -> tuple[Any, float]:
        """The type in whose ulps a weight is judged, and the distance of its numbers at 1."""
        del key
        name = "" if weight is None or weight.dtype is None else weight.dtype.name
        return (np.float32 if weight is None else weight.dtype), _EPS.get(name, _EPS["float32"])

    def class_of(
        self, node: Node | None, key: Hashable, numbers: Callable[[], Numbers] | None = None, scale: Scale = "none"
    ) -> tuple[int, Matched | None]:
        """The class under ``key``, entered if it is new, and how its numbers are a multiple of those it has."""
        found = self.numbering.find(key, numbers, scale)
        return found or (self.numbering.enter(key, numbers, node), None)

    def made(
        self, node: Node, key: Hashable, numbers: Callable[[], Numbers] | None = None, scale: Scale = "none"
    ) -> AbstractValue:
        """The form of what ``node`` makes: of the class under ``key``, times the factors of its numbers."""
        base, matched = self.class_of(node, key, numbers, scale)
        if matched is None:
            return AbstractValue(base)
        return AbstractValue(base, Affine.of(matched.factor, 0.0), matched.error)

    def realised(self, node: Node, abstract: AbstractValue, eps: float) -> int:
        """The class of the very value, its map included."""
        agreed = abstract.agrees(AbstractValue(abstract.base), eps)
        if agreed is not None and agreed.all():
            return abstract.base
        numbers = numbers_of(abstract, eps)
        return self.class_of(node, ("map", abstract.base), lambda: numbers, "none")[0]

    def unshifted(self, node: Node, abstract: AbstractValue, eps: float) -> AbstractValue:
        """The same value with its shift, but not its gain, taken into the class."""
        if not abstract.map.has_shift:
            return abstract
        numbers = numbers_of(abstract, eps)
        return self.made(node, ("shifted", abstract.base), lambda: numbers, "any")

    def positive(self, node: Node, abstract: AbstractValue) -> AbstractValue:
        """The same value with negative signs of its gain taken into the class; for a gain of 0 either sign will do."""
        sign = np.sign(abstract.map.gain)
        numbers = Numbers.stacked((sign,), (np.zeros(()),))
        known = (
            self.numbering.find(("sign", abstract.base), lambda: numbers, "nonnegative") if (sign == 0).any() else None
        )
        if known is None and (sign >= 0).all():
            return abstract
        base = (
            known[0]
            if known is not None
            else self.class_of(node, ("sign", abstract.base), lambda: numbers, "nonnegative")[0]
        )
        return AbstractValue(
            base, Affine.of(np.abs(abstract.map.gain), abstract.map.shift), abstract.gain_error, abstract.shift_error
        )

    # --- nodes

    def carried(self, node: Node, abstract: AbstractValue) -> dict[Value, AbstractValue] | None:
        """What the outputs carry if the class of the first input goes through ``node`` and its map moves along.

        The classes of the outputs are still to be set. None if the rule lets the map not pass.
        """
        outputs = node.live_outputs
        if abstract.is_plain and not abstract.gain_error.any() and not abstract.shift_error.any():
            return {value: AbstractValue(0) for value in outputs}
        maps = forward_transform(node, abstract.map)
        if maps is None:
            return None
        rank = abstract.map.gain.ndim
        errors = (
            forward_transform(node, Affine.of(*aligned(abstract.gain_error, abstract.shift_error))) if rank else None
        )
        if errors is None:
            bound = Affine.of(abstract.gain_error.max(initial=0.0), abstract.shift_error.max(initial=0.0))
            errors = dict.fromkeys(outputs, bound)
        return {
            value: AbstractValue(
                0, maps.get(value, IDENTITY), errors.get(value, IDENTITY).gain, errors.get(value, IDENTITY).shift
            )
            for value in outputs
        }

    def attributes(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """The attributes that matter, axes counted from the first, defaults left out."""
        rank = next((self.rank(value) for value in node.inputs if value is not None), None)
        return essential(node, rank)

    def bodies(self, node: Node, key: Hashable) -> tuple[Hashable, ...]:
        """What the nested graphs of ``node`` compute, as classes; their inputs are symbols that ``key`` tells apart."""
        found = []
        for label, graph in self.graphs.bodies.get(node, ()):
            for position, value in enumerate(graph.inputs):
                self.abstract[value] = AbstractValue(self.class_of(None, ("bound", key, label, position))[0])
            self._read_nodes(graph.nodes)
            results = [self.realised(node, self.abstract_of(value), self.eps(value)) for value in graph.outputs]
            found.append((label, tuple(results)))
        return tuple(sorted(found))

    def evaluated(self, node: Node, abstract_values: Sequence[AbstractValue]) -> bool:
        """Evaluate a node that reads nothing but constants, as simplifiers do before they write a model."""
        inputs = [
            None if value is None else self._data.get(abstract.base)
            for value, abstract in zip(node.inputs, abstract_values, strict=True)
        ]
        wanted = [value is not None for value in node.inputs]
        if not any(wanted) or any(w and data is None for w, data in zip(wanted, inputs, strict=True)):
            return False
        if node.op in ("Loop", "If", "Scan", "QuantizeLinear") or "::" in node.op or node.op in RANDOM:
            return False
        try:
            refuse_absurd(node, inputs, FEW)
            results = evaluate_node(node, inputs)
        except NotEvaluable:
            return False
        for value, data in zip(node.outputs, results, strict=False):
            if value is not None:
                self.abstract[value] = self.constant(data, value.dtype)
        return True


_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


def numbers_of(abstract: AbstractValue, eps: float) -> Numbers:
    """Gain and shift of a map, as numbers that tell classes apart."""
    gain, shift = abstract.map.gain, abstract.map.shift
    bars = aligned(abstract.gain_error, np.abs(gain), abstract.shift_error, np.abs(shift))
    return Numbers.stacked((gain, shift), (bars[0] + LOOSE * eps * bars[1], bars[2] + LOOSE * eps * bars[3]))
