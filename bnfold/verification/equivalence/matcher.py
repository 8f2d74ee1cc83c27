"""Read a folded model along its original: which class each value has there, and where the two part.

An example: the original is ``y = Relu(BatchNorm(Conv(x)))``, the folded model ``y = Relu(Conv'(x))``.

1. Reading the original enters the class *Conv of x with these rows* (call it c); the BatchNorm's output has the form
   ``g c + h``, the Relu's is of the class *Relu of g c + h*.
2. ``Conv'`` reads the same class of x. Its rows are found in the table as multiples of c's rows, by the factors g; with
   its bias the output has the form ``g c + h`` within rounding. That is the form of the original's BatchNorm, so
   from here on the two are one value (:class:`bnfold.verification.equivalence.value_index.ValueIndex`).
3. ``Relu`` reads what the original's Relu reads: its output is the original's ``y``.

Had a row of ``Conv'`` been no multiple of c's, that would be noted (:class:`Mismatch`) and reading would go on from
the nearest value that the original has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.verification.equivalence.abstract_values import DEAD, LOOSE, AbstractValue, Matched, Numbers, Scale, aligned
from bnfold.verification.equivalence.interpreter import Interpreter, numbers_of
from bnfold.verification.equivalence.mismatch import Mismatch, channels_of
from bnfold.verification.equivalence.value_index import ValueIndex, width_of


class Matcher(Interpreter):
    """Reads a folded model into the classes of an original that was read before.

    ``partings`` is where it parts from the original, ``untouched`` the nodes that are the original's, ``doubtful`` the
    values behind something unknown; ``raw`` holds the forms as they were read, before values that equal one of the
    original's take its form.
    """

    rounds = True

    def __init__(self, graphs: Graphs, original: Interpreter) -> None:
        super().__init__(graphs, original.numbering)
        self.original = original
        self.pads, self.cuts, self.clips = original.pads, original.cuts, original.clips
        self.mismatches: list[Mismatch] = []
        self.raw: dict[Value, AbstractValue] = {}
        self.untouched: set[Node] = set()
        self.tainted: set[Value | None] = set()
        self.known = ValueIndex(original)
        self._missed: bool = False
        self._settled: set[Value] = set()
        self._by_reads: dict[Hashable, list[Node]] = {}
        self._congruent: dict[Hashable, Node] = {}
        for value in list(original.abstract):  # looking at one may read what makes it
            if (node := value.producer) is not None and value is node.live_outputs[0]:
                self._by_reads.setdefault((node.op, _bases(original, node)), []).append(node)
                if (key := _congruence(original, node)) is not None:
                    self._congruent.setdefault(key, node)

    def read_node(self, node: Node) -> None:
        """As a reader does; where the original has nothing of the kind, go on from its nearest value.

        A node that reads and does exactly what one of the original does makes the same, whatever it means.
        """
        key = _congruence(self, node)
        if key is not None and (counterpart := self._congruent.get(key)) is not None:
            for value, other in zip(node.outputs, counterpart.outputs, strict=False):
                if value is not None and other in self.original.abstract:
                    self.abstract[value] = self.raw[value] = self.original.abstract[other]
                    self._settled.add(value)
            if all(value in self.abstract for value in node.live_outputs):
                self.untouched.add(node)
                self._check_widths(node)
                return
        self._missed = False
        before = len(self.mismatches)
        super().read_node(node)
        tainted = any(value in self.tainted for value in node.inputs)
        for value in node.live_outputs:
            if (abstract := self.abstract.get(value)) is not None:
                self.raw[value] = abstract
                if (same := self.equals(value)) is not None:
                    self.abstract[value] = self.original.abstract[same]
                    self._settled.add(value)
                elif tainted:
                    self.tainted.add(value)
        self._check_widths(node)
        if self._missed:
            del self.mismatches[before:]
            self._miss(node)
        elif tainted and len(self.mismatches) > before:
            self.mismatches[before:] = [replace(mismatch, kind="unknown") for mismatch in self.mismatches[before:]]
        elif len(self.mismatches) > before:
            self._assume_right(node)

    def _check_widths(self, node: Node) -> None:
        """Note results that are narrower than the original ever holds the same value."""
        for value in node.live_outputs:
            abstract = self.abstract.get(value)
            same = None if abstract is None else self.known.narrowed(abstract, width_of(value), self.eps(value))
            if same is not None:
                self.mismatches.append(Mismatch("unknown", node, same.producer, []))

    def _assume_right(self, node: Node) -> None:
        """Go on from a node whose numbers are wrong as if they were not."""
        if node in self.layers:
            meant = self.meant(self.layers[node].abstract, node.output, nearest=True)
            if meant is not None and self.layers[node].abstract is self.raw.get(node.output):
                self.abstract[node.output] = self.original.abstract[meant]
            return
        counterpart = self.mismatches[-1].counterpart
        for value, other in zip(node.outputs, counterpart.outputs if counterpart is not None else (), strict=False):
            if value is not None and other in self.original.abstract:
                self.abstract[value] = self.raw[value] = self.original.abstract[other]

    def _miss(self, node: Node) -> None:
        """Note what the original has nothing of, and go on from the value that should have been there."""
        counterpart = self._counterpart(node)
        alike = counterpart is not None and counterpart.op == node.op not in SPELT
        reading = _bases if node in self.layers else _reads  # a layer's weights are judged as numbers
        alike = alike and counterpart is not None and reading(self.original, counterpart) == reading(self, node)
        alike = alike and counterpart is not None and self.attributes(node) != self.original.attributes(counterpart)
        self.mismatches.append(Mismatch("attributes" if alike else "unknown", node, counterpart, []))
        for made in node.live_outputs:
            named = self.known.named.get(made.name)
            known = named.producer if named is not None else None
            if named is not None and known is not None and (alike or known.op == node.op):
                self.abstract[made] = self.original.abstract[named]
            else:
                self.tainted.add(made)
        if counterpart is not None:
            for value, other in zip(node.outputs, counterpart.outputs, strict=False):
                if value is not None and value in self.tainted and other in self.original.abstract:
                    self.abstract[value] = self.original.abstract[other]

    def eps(self, *values: Value | None) -> float:
        """As a reader does, or that of the original's narrower type for the same values."""
        own = super().eps(*values)
        bases = [self.abstract[value].base for value in values if value is not None and value in self.abstract]
        return max([own, *map(self.known.coarsest, bases)])

    def precision(self, weight: Value | None, key: Hashable) -> tuple[Any, float]:
        """That of the original's weight where it is coarser: a tool may fold in it and store in a wider type."""
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
        """A class that the original has; where only the numbers differ, the nearest one, and that is noted."""
        found = self.numbering.find(key, numbers, scale)
        if found is not None or node is None:
            return found or (self.numbering.enter(key, numbers, node), None)
        near = None if numbers is None else self.numbering.nearest(key, numbers, scale)
        if near is None:
            self._missed = True
            return self.numbering.enter(key, numbers, node), None
        entry, matched = near
        self._part(node, entry.owner, matched.same)
        keep = matched.same if scale != "any" else np.ones_like(matched.same)
        return entry.base, Matched(np.where(keep, matched.factor, 1.0), matched.error, matched.same)

    def is_exact(self, value: Value | None) -> bool:
        """True if the value has been found to be one of the original's: errors don't add up from layer to layer.

        Each layer is judged by what rounding costs there; a fault is seen where it is.
        """
        return value in self._settled

    def rank(self, value: Value) -> int | None:
        """As a reader does; behind operators that only onnxruntime knows, that of the original's same value."""
        same = None if value.rank is not None else self.equals(value)
        return value.rank if same is None else same.rank

    def was(self, value: Value, dtype: str) -> bool:
        """True if the original holds the same value in ``dtype``: its own results were that narrow."""
        same = self.equals(value)
        return same is not None and same.dtype is not None and same.dtype.name == dtype

    def unshifted(self, node: Node, abstract: AbstractValue, eps: float) -> AbstractValue:
        """As a reader does; a factor that is 1 but for rounding is 1."""
        found = super().unshifted(node, abstract, eps)
        plain = AbstractValue(found.base)
        same = found.agrees(plain, eps)
        return plain if same is not None and same.all() else found

    def realised(self, node: Node, abstract: AbstractValue, eps: float) -> int:
        """As a reader does; a map that no value of the original carries counts as the nearest one that does."""
        candidates = self.known.abstract_values(abstract.base)
        agreeing = [other for other in candidates if (same := abstract.agrees(other, eps)) is not None and same.all()]
        if not agreeing and abstract.map.gain.ndim:  # what is left of a map that a layer has taken a part of
            numbers = numbers_of(abstract, eps)
            if (found := self.numbering.find(("map", abstract.base), lambda: numbers, "none")) is not None:
                return found[0]
        if agreeing or not candidates:
            return self.original.realised(node, agreeing[0], eps) if agreeing else super().realised(node, abstract, eps)
        nearest = min(candidates, key=abstract.distance)
        same = abstract.agrees(nearest, eps)
        assert same is not None
        self._part(node, None, same)
        return self.original.realised(node, nearest, eps)

    def equals(self, value: Value) -> Value | None:
        """The value of the original that ``value`` equals, of the same name if several do."""
        abstract = self.abstract.get(value)
        return None if abstract is None else self.known.equal(abstract, self.eps(value), value.name)

    def exactly(self, value: Value) -> Value | None:
        """As :meth:`equals`, but not where errors have added up on the way from layer to layer."""
        same, raw = self.equals(value), self.raw.get(value)
        if same is None or raw is None:
            return same
        known, eps = self.original.abstract[same], self.eps(value)
        arrays = aligned(raw.gain_error, raw.shift_error, known.map.gain, known.map.shift, known.shift_error)
        gain_error, shift_error, gain, shift, terms = (np.abs(array) for array in arrays)
        fine = gain_error <= 4 * LOOSE * eps * gain + DEAD * gain.max(initial=0.0)
        fine = fine & (shift_error <= 4 * (terms + LOOSE * eps * shift) + DEAD * shift.max(initial=0.0))
        return same if fine.all() else None

    def meant(self, abstract: AbstractValue, value: Value, *, nearest: bool = False) -> Value | None:
        """The value of the original that a layer's output was meant to be: the one that it equals, or nearly does.

        None where the folded model carries another multiple of it between two layers, as it is free to: then most
        channels differ. ``nearest``: something behind the layer is wrong, so it was not meant to differ.
        """
        return self.known.meant(abstract, self.eps(value), value.name, nearest=nearest)

    def _part(self, node: Node, counterpart: Any, same: NDArray[np.bool_]) -> None:
        owner = counterpart if isinstance(counterpart, Node) else None
        if not (self.mismatches and self.mismatches[-1].node is node):
            self.mismatches.append(Mismatch("numbers", node, owner, channels_of(~same)))

    def _counterpart(self, node: Node) -> Node | None:
        """The original's node to compare with: one that makes a value of the same name, or reads the same values."""
        for value in node.live_outputs:
            known = self.known.named.get(value.name)
            if known is not None and known.producer is not None and known.producer.op == node.op:
                return known.producer
        reading = self._by_reads.get((node.op, _bases(self, node)), ())
        return (
            reading[0]
            if reading
            else next(
                (self.known.named[v.name].producer for v in node.live_outputs if v.name in self.known.named), None
            )
        )


SPELT = frozenset(
    """
    LSTM GRU RNN MaxPool AveragePool LpPool Reshape Slice Pad Resize Upsample Expand Squeeze Unsqueeze Tile Gather Split
    ReduceMean ReduceSum ReduceMax ReduceMin Cast ConstantOfShape Range Shape Size Where Dropout If Loop Scan
    """.split()  # noqa: SIM905
)
"""Operators whose attributes and constants can be written in several ways that mean the same."""


def _bases(interpreter: Interpreter, node: Node) -> tuple[int, ...]:
    """The classes of what a node reads, constants aside."""
    constants = node.graph.constants
    return tuple(
        interpreter.abstract[value].base
        for value in node.inputs
        if value is not None and value in interpreter.abstract and not constants.is_constant(value)
    )


def _reads(interpreter: Interpreter, node: Node) -> list[int]:
    """The classes of all that a node reads, constants included."""
    return [interpreter.abstract_of(value).base for value in node.inputs if value is not None]


def _congruence(interpreter: Interpreter, node: Node) -> Hashable | None:
    """All that decides what a node makes: operator, attributes, and the very values that it reads."""
    if node in interpreter.graphs.bodies:
        return None
    reads: list[Hashable] = []
    for value in node.inputs:
        if value is not None and value.graph.constants.is_constant(value):
            reads.append(interpreter.fingerprint(value))
        else:
            abstract = interpreter.abstract_of(value)
            gain, shift = abstract.map.gain, abstract.map.shift
            reads.append((abstract.base, gain.shape, gain.tobytes(), shift.shape, shift.tobytes()))
    return node.op, node.opset, interpreter.attributes(node), tuple(reads)
