"""Read a folded model beside its original: the class of each value there, and the mismatches.

An example: the original is ``y = Relu(BatchNorm(Conv(x)))``, the folded model ``y = Relu(Conv'(x))``.

1. Reading the original enters the class *Conv of x with these rows* (call it c); the BatchNorm's output has the state
   ``g c + h``, the Relu's is of the class *Relu of g c + h*.
2. ``Conv'`` reads the same class of x. Its rows are found in the table as multiples of c's rows, by the factors g; with
   its bias the output has the state ``g c + h`` within rounding. That is the state of the original's BatchNorm, so
   from here on the two are one value (:class:`bnfold.verification.equivalence.value_index.ValueIndex`).
3. ``Relu`` reads what the original's Relu reads: its output is the original's ``y``.

If a row of ``Conv'`` is no multiple of c's, that is recorded (:class:`Mismatch`), and reading goes on from the nearest
value that the original has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue, numbers_of
from bnfold.verification.equivalence.attributes import MANY_SPELLINGS
from bnfold.verification.equivalence.congruence import MOVES, bases, behind_exchangeable, congruence, reads
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.mismatch import Mismatch, channels_of
from bnfold.verification.equivalence.multiples import DEAD, LOOSE, Matched, Numbers, Scale, aligned
from bnfold.verification.equivalence.value_index import ValueIndex, width_of


class Matcher(Interpreter):
    """Reads a folded model into the classes of an original that was read before.

    ``untouched`` are the nodes that are the original's, ``tainted`` the values that depend on something unknown.
    ``guessed`` are those that equal one of the original's only if an unknown value is what its name and operator say:
    what differs behind them proves nothing.
    ``raw`` holds the states as they were read, before values that equal one of the original's take its state.
    """

    rounds = True

    def __init__(self, graphs: Graphs, original: Interpreter) -> None:
        super().__init__(graphs, original.numbering, original.semantics)
        self.original = original
        self.pads, self.slices, self.clips = original.pads, original.slices, original.clips
        self.views, self.turns, self.means = original.views, original.turns, original.means
        self.shapes, self._data = original.shapes, original._data
        self.mismatches: list[Mismatch] = []
        self.raw: dict[Value, AbstractValue] = {}
        self.untouched: set[Node] = set()
        self.tainted: set[Value | None] = set()
        self.guessed: set[Value | None] = set()
        self.index = ValueIndex(original)
        self._missed: bool = False
        self._exact: set[Value] = set()
        self._by_reads: dict[Hashable, list[Node]] = {}
        self._read_by: set[tuple[str, int]] = set()
        self._claimed: set[int] = set()
        self._last = self.numbering.last
        self._compared: dict[Node, int] = {}
        self._nodes = {node for scope in graphs.scopes for node in scope.nodes}
        self._current: Node | None = None
        self._exchangeable = behind_exchangeable(self)
        self._congruent: dict[Hashable, Node] = {}
        for value in list(original.states):  # looking at one may read what makes it
            if (node := value.producer) is not None and value is node.live_outputs[0]:
                self._by_reads.setdefault((node.op, bases(original, node)), []).append(node)
                self._read_by.update((node.op, base) for base in bases(original, node))
                if (key := congruence(original, node)) is not None:
                    self._congruent.setdefault(key, node)

    def read(self) -> None:
        """Read the model; what was compared with a layer that another node turned out to compute proves nothing."""
        super().read()
        wrong = {node for node, base in self._compared.items() if base in self._claimed}
        doubted: set[Value] = set()
        for scope in self.graphs.scopes if wrong else ():
            for node in scope.nodes:
                if node in wrong or any(value in doubted for value in node.inputs):
                    doubted.update(node.live_outputs)
                    wrong.add(node)
        self.guessed |= doubted
        self.tainted |= doubted
        self.mismatches = [replace(m, kind="unknown") if m.node in wrong else m for m in self.mismatches]

    def read_node(self, node: Node) -> None:
        """Set the states of a node's outputs; where the original has nothing of the kind, go on from its nearest value.

        A node of the same operator, attributes and inputs as one of the original is equal, whatever it computes.
        """
        self._current = node
        guessed = any(value in self.guessed for value in node.inputs)
        if guessed:
            self.guessed.update(node.live_outputs)
            self.tainted.update(node.live_outputs)
        key = congruence(self, node)
        if key is not None and (counterpart := self._congruent.get(key)) is not None:
            for value, other in zip(node.outputs, counterpart.outputs, strict=False):
                if value is not None and other in self.original.states:
                    self.states[value] = self.raw[value] = self.original.states[other]
                    self._exact.add(value)
                    if self.numbering.entry(self.states[value].base).owner is counterpart:
                        self._claimed.add(self.states[value].base)
            if all(value in self.states for value in node.live_outputs):
                self.untouched.add(node)
                self._check_widths(node)
                return
        self._missed = False
        before = len(self.mismatches)
        super().read_node(node)
        self._current = node  # which may have had graphs of its own
        tainted = any(value in self.tainted for value in node.inputs)
        for value in node.live_outputs:
            if (state := self.states.get(value)) is not None:
                self.raw[value] = state
                if (same := self.equals(value)) is not None:
                    self.states[value] = self.original.states[same]
                    self._exact.add(value)
                    continue
                self.states[value] = _without_noise(state, self.eps(value))
                if tainted:
                    self.tainted.add(value)
        self._check_widths(node)
        if self._missed:
            del self.mismatches[before:]
            self._add_unknown_mismatch(node, tainted=tainted)
        elif (tainted or node in self._exchangeable) and len(self.mismatches) > before:
            self.mismatches[before:] = [replace(mismatch, kind="unknown") for mismatch in self.mismatches[before:]]
            self.guessed.update(node.live_outputs)
            self.tainted.update(node.live_outputs)
        elif len(self.mismatches) > before:
            self._assume_right(node)

    def _check_widths(self, node: Node) -> None:
        """Record results in a narrower type than the original ever holds the same value in."""
        for value in node.live_outputs:
            state = self.states.get(value)
            same = None if state is None else self.index.narrowed(state, width_of(value), self.eps(value))
            if same is not None:
                self.mismatches.append(Mismatch("unknown", node, same.producer, []))

    def _assume_right(self, node: Node) -> None:
        """Go on from a node with wrong numbers as if they were right: one fault is reported once."""
        if node in self.layers:
            meant = self.meant(self.layers[node].output, node.output, nearest=True)
            if meant is not None and self.layers[node].output is self.raw.get(node.output):
                self.states[node.output] = self.original.states[meant]
            return
        counterpart = self.mismatches[-1].counterpart
        for value, other in zip(node.outputs, counterpart.outputs if counterpart is not None else (), strict=False):
            if value is not None and other in self.original.states:
                self.states[value] = self.raw[value] = self.original.states[other]

    def _add_unknown_mismatch(self, node: Node, *, tainted: bool) -> None:
        """Record a node that the original has no counterpart of, and go on from the value that it should have made.

        What only moves entries may be taken back, or make no difference to what reads it: it stands for itself.
        """
        counterpart = self._counterpart(node)
        same_node = counterpart is not None and not tainted and self._differs_in_attributes(node, counterpart)
        if node.op in MOVES and not same_node:
            self.mismatches.append(Mismatch("unknown", node, None, []))
            self.tainted.update(node.live_outputs)
            return
        self.mismatches.append(Mismatch("attributes" if same_node else "unknown", node, counterpart, []))
        for made in node.live_outputs:
            named = self.index.named.get(made.name)
            known = named.producer if named is not None else None
            if named is not None and known is not None and (same_node or known.op == node.op):
                self.states[made] = self.original.states[named]
                if not same_node:
                    self.guessed.add(made)
                    self.tainted.add(made)
            else:
                self.tainted.add(made)
        if counterpart is not None:
            for value, other in zip(node.outputs, counterpart.outputs, strict=False):
                if value is not None and value in self.tainted and other in self.original.states:
                    self.states[value] = self.original.states[other]
                    self.guessed.add(value)

    def _differs_in_attributes(self, node: Node, counterpart: Node) -> bool:
        """Return True if both nodes have one operator and the same inputs, and only other attributes."""
        reading = bases if node in self.layers else reads  # a layer's weights are compared as numbers
        return (
            counterpart.op == node.op not in MANY_SPELLINGS
            and node not in self.draws
            and reading(self.original, counterpart) == reading(self, node)
            and self.attributes(node) != self.original.attributes(counterpart)
        )

    def eps(self, *values: Value | None) -> float:
        """Return that of the values' type, or of the original's narrower type for the same values."""
        own = super().eps(*values)
        classes = [self.states[value].base for value in values if value is not None and value in self.states]
        return max([own, *map(self.index.coarsest, classes)])

    def precision(self, weight: Value | None, key: Hashable) -> tuple[Any, float]:
        """Return that of the original's weight if it is coarser: a tool may fold in it and store in a wider type."""
        dtype, eps = super().precision(weight, key)
        for entry in self.numbering.entries(key):
            if isinstance(entry.owner, Node):
                for value in entry.owner.inputs[:2]:
                    if value is not None and entry.owner.graph.constants.is_constant(value):
                        other = self.original.precision(value, key)
                        dtype, eps = max((dtype, eps), other, key=lambda pair: pair[1])
        return dtype, eps

    def class_of(
        self, node: Node | None, key: Hashable, numbers: Callable[[], Numbers] | None = None, scale: Scale = "none"
    ) -> tuple[int, Matched | None]:
        """Return a class that the original has; where only numbers differ, record that and return the nearest one."""
        found = self.numbering.find(key, numbers, scale)
        if found is not None or node is None:
            if found is not None and numbers is not None:
                self._claimed.add(found[0])
            return found or (self.numbering.enter(key, numbers, node), None)
        near = None if numbers is None else self.numbering.nearest(key, numbers, scale, self._last, self._claimed)
        if near is None:
            self._missed = True
            return self.numbering.enter(key, numbers, node), None
        entry, matched = near
        node = self._real(node)
        if matched.same.mean() <= 0.5:
            self._compared[node] = entry.base
        self._add_numbers_mismatch(node, entry.owner, matched.same)
        keep = matched.same if scale != "any" else np.ones_like(matched.same)
        return entry.base, Matched(np.where(keep, matched.factor, 1.0), matched.error, matched.same)

    def _real(self, node: Node) -> Node:
        """Return the node that is being read, for one that stands for a part of it: an activation, say."""
        return node if node in self._nodes or self._current is None else self._current

    def is_exact(self, value: Value | None) -> bool:
        """Return True if the value equals one of the original's: errors don't add up from layer to layer.

        Each layer is judged by what rounding costs there; a fault is reported where it is.
        """
        return value in self._exact

    def rank(self, value: Value) -> int | None:
        """Return the rank; behind operators that only onnxruntime knows, that of the original's same value."""
        same = None if value.rank is not None else self.equals(value)
        return value.rank if same is None else same.rank

    def was_held_in(self, value: Value, dtype: str) -> bool:
        """Return True if the original holds the same value in ``dtype``: its own results were that narrow."""
        same = self.equals(value)
        return same is not None and same.dtype is not None and same.dtype.name == dtype

    def unshifted(self, node: Node, state: AbstractValue, eps: float) -> AbstractValue:
        """Return the value without its shift, if it has one but for rounding; a factor that is 1 but for that is 1."""
        found = super().unshifted(node, _without_noise(state, eps), eps)
        plain = AbstractValue(found.base)
        same = found.agrees(plain, eps)
        return plain if same is not None and same.all() else found

    def materialized(self, node: Node, state: AbstractValue, eps: float) -> int:
        """Return the class of the value, if need be of the nearest transform that a value of the original has."""
        candidates = self.index.states_of(state.base)
        agreeing = [other for other in candidates if (same := state.agrees(other, eps)) is not None and same.all()]
        if not agreeing:  # the rest of a transform of which a layer has taken a part, or that of what a view shows
            numbers = numbers_of(state, eps)
            if (found := self.numbering.find(("transform", state.base), lambda: numbers, "none")) is not None:
                return found[0]
        if agreeing or not candidates:
            return (
                self.original.materialized(node, agreeing[0], eps)
                if agreeing
                else super().materialized(node, state, eps)
            )
        if not any((op, state.base) in self._read_by for op in (node.op, node.attr("activation"))):
            self._missed = True
            return super().materialized(node, state, eps)
        nearest = min(candidates, key=state.distance)
        same = state.agrees(nearest, eps)
        assert same is not None
        self._add_numbers_mismatch(node, None, same)
        return self.original.materialized(node, nearest, eps)

    def equals(self, value: Value) -> Value | None:
        """Return the value of the original that ``value`` equals, of the same name if several do."""
        state = self.states.get(value)
        return None if state is None else self.index.equal(state, self.eps(value), value.name)

    def exactly(self, value: Value) -> Value | None:
        """Return :meth:`equals`, but None where errors have added up from layer to layer."""
        same, raw = self.equals(value), self.raw.get(value)
        if same is None or raw is None:
            return same
        known, eps = self.original.states[same], self.eps(value)
        arrays = aligned(raw.gain_error, raw.shift_error, known.affine.gain, known.affine.shift, known.shift_error)
        gain_error, shift_error, gain, shift, terms = (np.abs(array) for array in arrays)
        fine = gain_error <= 4 * LOOSE * eps * gain + DEAD * gain.max(initial=0.0)
        fine = fine & (shift_error <= 4 * (terms + LOOSE * eps * shift) + DEAD * shift.max(initial=0.0))
        return same if fine.all() else None

    def meant(self, state: AbstractValue, value: Value, *, nearest: bool = False) -> Value | None:
        """Return the value of the original that a layer's output stands for: the one that it equals, or nearly does.

        None where the folded model holds another multiple of it between two layers, as it is free to: then most
        channels differ. ``nearest``: something after the layer is wrong, so the output should not differ.
        """
        return self.index.meant(state, self.eps(value), value.name, nearest=nearest)

    def _add_numbers_mismatch(self, node: Node, counterpart: Any, same: NDArray[np.bool_]) -> None:
        owner, node = counterpart if isinstance(counterpart, Node) else None, self._real(node)
        if not (self.mismatches and self.mismatches[-1].node is node):
            self.mismatches.append(Mismatch("numbers", node, owner, channels_of(~same)))

    def _counterpart(self, node: Node) -> Node | None:
        """Return the original's node to compare with: it makes a value of the same name, or reads the same values."""
        for value in node.live_outputs:
            known = self.index.named.get(value.name)
            if known is not None and known.producer is not None and known.producer.op == node.op:
                return known.producer
        if reading := self._by_reads.get((node.op, bases(self, node))):
            return reading[0]
        named = (self.index.named.get(value.name) for value in node.live_outputs)
        return next((value.producer for value in named if value is not None), None)


def _without_noise(state: AbstractValue, eps: float) -> AbstractValue:
    """Return a value without a shift that is zero but for rounding, and without its bars.

    As for a value that equals one of the original's: each layer is judged by what rounding costs there, and its bars
    don't go on into the next one, block after block of a residual network.
    """
    zeros = np.zeros_like(state.affine.shift)
    still = replace(state, affine=Affine.of(state.affine.gain, zeros), shift_error=np.zeros(()))
    same = state.agrees(still, eps)
    return still if same is not None and same.all() else state
