"""Read a network by abstract interpretation: the abstract value (state) of every value, node by node.

This never depends on the planner: it says what is computed, not what may be folded. (How layout operators move a
transform, and which branches add up to one convolution, is asked of :mod:`bnfold.rules` and
:mod:`bnfold.planner.branch_merging`.) What the operators compute is handed in
(:mod:`bnfold.verification.equivalence.semantics.table`); here is what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import FEW
from bnfold.ir.evaluation import NotEvaluable, evaluate_node, refuse_absurd
from bnfold.ir.graph import Graphs, Node, Shape, Value
from bnfold.ir.random_operators import is_random
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.rounding import is_float, rounded
from bnfold.planner.branch_merging import Merge, merges
from bnfold.rules.forward_transform import forward_transform
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import INCONSISTENT_MODEL
from bnfold.verification.equivalence.abstract_values import EPSILON, AbstractValue, Layer, ValueNumbering, numbers_of
from bnfold.verification.equivalence.attributes import essential
from bnfold.verification.equivalence.multiples import Array, Matched, Numbers, Scale, aligned, evened
from bnfold.verification.equivalence.shapes import infer_types

FOLDED_AWAY = 2**20
"""Elements up to which a node of constant inputs is evaluated, as simplifiers do."""

HELD = 2**24
"""Elements of computed constants that are kept for that, in all."""


OperatorSemantics = Callable[["Interpreter", Node], bool]


@dataclass(frozen=True)
class Semantics:
    """What operators compute: a function by operator, and ``opaque`` for any other.

    A function reads the states of a node's inputs and sets those of its outputs. It returns False where it can't say
    more than ``opaque``: some function of the very values that the node reads.
    """

    by_operator: Mapping[str, OperatorSemantics]
    opaque: OperatorSemantics


class Interpreter:
    """Reads one model's graphs into a value ``numbering``; ``states`` holds the abstract value of each value.

    ``layers`` holds the linear layers, ``draws`` the place of each random node among all random ones. ``merged`` reads
    sums of parallel branches as the convolution that RepVGG makes of them. ``rounds`` says that the model's numbers may
    be rounded results, so that its weights get error bars.
    """

    rounds = False

    def __init__(
        self, graphs: Graphs, numbering: ValueNumbering, semantics: Semantics, *, merged: bool = False
    ) -> None:
        self.graphs, self.numbering, self.semantics = graphs, numbering, semantics
        self.states: dict[Value, AbstractValue] = {}
        self._merges = {merge.target: merge for scope in graphs.scopes if merged for merge in merges(scope)}
        self.pads: dict[int, tuple[int, list[int]]] = {}
        self.clips: dict[int, tuple[AbstractValue, Array, Array]] = {}
        self.slices: dict[int, tuple[int, dict[int, tuple[int, int, int]]]] = {}
        self.views: dict[int, tuple[int, tuple[int | None, ...]]] = {}
        self.turns: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.means: dict[int, int] = {}
        self.layers: dict[Node, Layer] = {}
        self._data: dict[int, NDArray[Any]] = {}
        self._room = HELD
        self.shapes: dict[int, Shape] = {}
        random = (node for scope in graphs.scopes for node in scope.nodes if is_random(node))
        self.draws = {node: place for place, node in enumerate(random)}
        self._fingerprints: dict[Value, Hashable] = {}
        self._computed: dict[Value, Value] = {}
        self._stored: set[Value | None] = set()

    def read(self) -> None:
        """Read the main graph and every graph in it."""
        main = self.graphs.scopes[0]
        for value in main.inputs:
            self.states[value] = AbstractValue(self.class_of(None, ("input", value.name))[0])
        self._read_nodes(main.nodes)

    def rank(self, value: Value) -> int | None:
        """Return the number of axes of a value, if it is known."""
        return value.rank

    def shape(self, value: Value) -> Shape | None:
        """Return the shape of a value, or that of another of its class, which may be known better."""
        own, state = value.shape, self.states.get(value)
        if own is None or state is None or all(isinstance(size, int) for size in own):
            return own
        other = self.shapes.get(state.base)
        return other if other is not None and len(other) == len(own) else own

    def _infer_types(self, node: Node) -> None:
        """Give what a node reads and makes types and shapes where inference knew none: behind onnxruntime's operators.

        Values of one class have one shape: behind what is found in the other model, it is known again.
        """
        for value in node.inputs:
            if value is not None and value.tensor is None and value.shape is None and value in self.states:
                shape = self.shapes.get(self.states[value].base)
                if shape is not None and value.producer is not None:
                    floats = (v.dtype for v in value.producer.inputs if v is not None and v.dtype is not None)
                    dtype = value.dtype or next((dtype for dtype in floats if is_float(dtype)), None)
                    value.tensor_type = dtype, tuple(size for size in shape if isinstance(size, int))
        infer_types(node)

    def is_exact(self, _value: Value | None) -> bool:
        """Return True if a value's transform carries no error so far: an original's bars say what a fold may cost."""
        return True

    def was_held_in(self, _value: Value, _dtype: str) -> bool:
        """Return True if the value is known to have been held in that type before: nothing is, in an original."""
        return False

    def _read_nodes(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            if node.live_outputs and not all(map(node.graph.constants.is_constant, node.live_outputs)):
                self._take_computed_constants(node)
                self._infer_types(node)
                self.read_node(node)

    def _take_computed_constants(self, node: Node) -> None:
        """Let ``node`` read constants that were evaluated here as constants: simplifiers store them.

        Rules ask :class:`bnfold.ir.constant_folding.Constants`, which evaluates what weights are made of. The proof
        evaluates more (a positional encoding, say), so that both spellings are read as one.
        """
        for index, value in enumerate(node.inputs):
            state = None if value is None else self.states.get(value)
            if value is None or state is None or node.graph.constants.is_constant(value):
                continue
            if index and node.op in ("Conv", "ConvTranspose", "Gemm"):
                continue  # a weight that is standardized, say: how far rounding moves it is not known here
            if state.base in self._data and state.is_plain:
                if value not in self._computed:
                    data = self._data[state.base]
                    stored = Value(value.name, value.graph, tensor_type=(value.dtype or data.dtype, data.shape))
                    stored.tensor = lambda data=data: data
                    self.states[stored] = state
                    self._computed[value] = stored
                    self._stored.add(stored)
                node.inputs[index] = self._computed[value]

    def read_node(self, node: Node) -> None:
        """Set the states of a node's outputs."""
        opaque = self.semantics.opaque
        try:
            rounds = node in rounding_nodes(node.graph)
            done = self._reads_constants(node) and self.evaluated(node, [self.state_of(v) for v in node.inputs])
            done = done or (opaque if rounds else self.semantics.by_operator.get(node.op, opaque))(self, node)
        except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
            done = False
        if not done:
            opaque(self, node)
        for value in node.live_outputs:
            shape = value.shape
            if value in self.states and shape is not None and all(isinstance(size, int) for size in shape):
                self.shapes.setdefault(self.states[value].base, shape)
            if (merge := self._merges.get(value)) is not None:
                self._read_merged(merge)

    def _reads_constants(self, node: Node) -> bool:
        return all(value is None or node.graph.constants.is_constant(value) for value in node.inputs)

    def is_computed(self, value: Value | None) -> bool:
        """Return True for a constant that was evaluated here: a tool that stores it rounds at other places."""
        return value in self._stored

    def _read_merged(self, merge: Merge) -> None:
        """Read a sum of parallel branches as the one convolution that computes it."""
        node, values = merge.conv, []
        dtype = np.dtype(np.float64) if node.inputs[1] is None else node.inputs[1].dtype
        for name, data in (("weight", merge.weight), ("bias", merge.bias)):
            value = Value(f"{merge.target.name} merged {name}", node.graph, tensor_type=(dtype, data.shape))
            value.tensor = lambda data=data: data
            values.append(value)
        whole = replace(node, inputs=[node.inputs[0], *values], outputs=[merge.target], handle=None)
        self.semantics.by_operator[whole.op](self, whole)

    def state_of(self, value: Value | None) -> AbstractValue:
        """Return the state of a value; constants have one too."""
        if value is None:
            return AbstractValue(self.class_of(None, ("absent",))[0])
        known = self.states.get(value)
        if known is None:
            try:
                data = value.graph.constants.evaluate(value)
                known = self.constant(data, value.dtype, stored=value.tensor is not None)
            except NotEvaluable:  # a constant too large to be computed is identified by what makes it
                if value.producer is None:
                    raise
                self.read_node(value.producer)
                known = self.states[value]
            self.states[value] = known
        return known

    def fingerprint(self, value: Value) -> Hashable:
        """Return what distinguishes constants, bit by bit."""
        known = self._fingerprints.get(value)
        if known is None:
            try:
                data = value.graph.constants.evaluate(value)
            except NotEvaluable:
                return ("made", self.state_of(value).base)
            if data.dtype.kind in "OSU":
                return (data.dtype.str, data.shape, repr(data.tolist()))
            digest = blake2b(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data, digest_size=16)
            known = self._fingerprints[value] = (data.dtype.str, data.shape, digest.hexdigest())
        return known

    def constant(self, data: NDArray[Any], dtype: np.dtype[Any] | None, *, stored: bool = False) -> AbstractValue:
        """Return the state of constant data of a type, which may decide what an operator computes.

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
        """Return the distance from 1 to the next number of the values' float type."""
        for value in values:
            name = value.dtype.name if value is not None and value.dtype is not None else ""
            if name in EPSILON:
                return EPSILON[name]
        return EPSILON["float32"]

    def precision(self, weight: Value | None, key: Hashable) -> tuple[Any, float]:
        """Return the type in whose ulps a weight is judged, and the distance of its numbers at 1."""
        del key
        name = "" if weight is None or weight.dtype is None else weight.dtype.name
        return (np.float32 if weight is None else weight.dtype), EPSILON.get(name, EPSILON["float32"])

    def class_of(
        self, node: Node | None, key: Hashable, numbers: Callable[[], Numbers] | None = None, scale: Scale = "none"
    ) -> tuple[int, Matched | None]:
        """Return the class under ``key``, entered if it is new, and how its numbers are a multiple of those it has."""
        found = self.numbering.find(key, numbers, scale)
        return found or (self.numbering.enter(key, numbers, node), None)

    def made(
        self, node: Node, key: Hashable, numbers: Callable[[], Numbers] | None = None, scale: Scale = "none"
    ) -> AbstractValue:
        """Return the state of what ``node`` makes: the class under ``key``, times the factors of its numbers."""
        base, matched = self.class_of(node, key, numbers, scale)
        if matched is None:
            return AbstractValue(base)
        factor, error = matched.factor, matched.error
        for axis in range(factor.ndim if factor.ndim > 1 else 0):
            even, _ = evened(factor, np.zeros(()), [axis], EPSILON["float64"])
            if even.size < factor.size:  # it differed by what computing it in float64 costs
                factor, error = even, error + np.abs(factor - even)
        return AbstractValue(base, Affine.of(factor, 0.0), error)

    def materialized(self, node: Node, state: AbstractValue, eps: float) -> int:
        """Return the class of the value itself, its transform included."""
        agreed = state.agrees(AbstractValue(state.base), eps)
        if agreed is not None and agreed.all():
            return state.base
        numbers = numbers_of(state, eps)
        return self.class_of(node, ("transform", state.base), lambda: numbers, "none")[0]

    def unshifted(self, node: Node, state: AbstractValue, eps: float) -> AbstractValue:
        """Return the same value with its shift, but not its gain, taken into the class.

        A constant channel whose number is nothing but rounding is zero, and depends on no class.
        """
        if not state.affine.has_shift:
            return state
        gain, shift, error = aligned(state.affine.gain, state.affine.shift, state.shift_error)
        zero = (gain == 0) & (np.abs(shift) <= error)
        plain = Affine.of(gain, np.where(zero, 0.0, shift))
        numbers = numbers_of(AbstractValue(state.base, plain, state.gain_error, state.shift_error), eps)
        return self.made(node, ("shifted", state.base), lambda: numbers, "any").only(~zero)

    def positive(self, node: Node, state: AbstractValue) -> AbstractValue:
        """Return the same value with negative signs of its gain taken into the class; a gain of 0 has either sign."""
        sign = np.sign(state.affine.gain)
        numbers = Numbers.stacked((sign,), (np.zeros(()),))
        known = self.numbering.find(("sign", state.base), lambda: numbers, "nonnegative") if (sign == 0).any() else None
        if known is None and (sign >= 0).all():
            return state
        base, _ = known or self.class_of(node, ("sign", state.base), lambda: numbers, "nonnegative")
        return AbstractValue(
            base, Affine.of(np.abs(state.affine.gain), state.affine.shift), state.gain_error, state.shift_error
        )

    def carried(self, node: Node, state: AbstractValue) -> dict[Value, AbstractValue] | None:
        """Return the states of the outputs if the class of the first input goes through ``node`` with its transform.

        Their classes are still to be set. None if the rule does not let the transform pass.
        """
        outputs = node.live_outputs
        if state.is_plain and not state.gain_error.any() and not state.shift_error.any():
            return {value: AbstractValue(0) for value in outputs}
        maps = forward_transform(node, state.affine)
        if maps is None:
            return None
        rank = state.affine.gain.ndim
        errors = forward_transform(node, Affine.of(*aligned(state.gain_error, state.shift_error))) if rank else None
        if errors is None:
            bound = Affine.of(state.gain_error.max(initial=0.0), state.shift_error.max(initial=0.0))
            errors = dict.fromkeys(outputs, bound)
        return {
            value: AbstractValue(
                0, maps.get(value, IDENTITY), errors.get(value, IDENTITY).gain, errors.get(value, IDENTITY).shift
            )
            for value in outputs
        }

    def attributes(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """Return the attributes that matter, axes counted from the first, defaults left out."""
        rank = next((self.rank(value) for value in node.inputs if value is not None), None)
        return essential(node, rank)

    def bodies(self, node: Node, key: Hashable) -> tuple[Hashable, ...]:
        """What the subgraphs of control flow of ``node`` compute, as classes; ``key`` distinguishes their inputs."""
        found = []
        for label, graph in self.graphs.bodies.get(node, ()):
            for position, value in enumerate(graph.inputs):
                self.states[value] = AbstractValue(self.class_of(None, ("bound", key, label, position))[0])
            self._read_nodes(graph.nodes)
            results = [self.materialized(node, self.state_of(value), self.eps(value)) for value in graph.outputs]
            found.append((label, tuple(results)))
        return tuple(sorted(found))

    def evaluated(self, node: Node, states: Sequence[AbstractValue]) -> bool:
        """Evaluate a node of constant inputs, as simplifiers do before they write a model; False if it is none."""
        inputs = [
            None if value is None else self._data.get(state.base)
            for value, state in zip(node.inputs, states, strict=True)
        ]
        wanted = [value is not None for value in node.inputs]
        if not any(wanted) or any(w and data is None for w, data in zip(wanted, inputs, strict=True)):
            return False
        if node.op in ("Loop", "If", "Scan", "QuantizeLinear") or "::" in node.op or node in self.draws:
            return False
        inputs = [_as_stored(value, data) for value, data in zip(node.inputs, inputs, strict=True)]
        try:
            refuse_absurd(node, inputs, FEW)
            results = evaluate_node(node, inputs)
        except NotEvaluable:
            return False
        for value, data in zip(node.outputs, results, strict=False):
            if value is not None:
                self.states[value] = self.constant(data, value.dtype)
        return True


def _as_stored(value: Value | None, data: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return data in the type that a runtime holds it in: floats may have been computed in float64."""
    dtype = None if value is None else value.dtype
    if data is None or dtype is None or data.dtype == dtype or not (is_float(dtype) and is_float(data.dtype)):
        return data
    return rounded(data, dtype)
