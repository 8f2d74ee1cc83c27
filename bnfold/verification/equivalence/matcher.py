"""Read a folded model along its original: which class each value has there, and where the two part.

An example: the original is ``y = Relu(BatchNorm(Conv(x)))``, the folded model ``y = Relu(Conv'(x))``.

1. Reading the original enters the class *Conv of x with these rows* (call it c); the BatchNorm's output has the form
   ``g c + h``, the Relu's is of the class *Relu of g c + h*.
2. ``Conv'`` reads the same class of x. Its rows are found in the table as multiples of c's rows, by the factors g; with
   its bias the output has the form ``g c + h`` within rounding. That is the form of the original's BatchNorm, so
   from here on the two are one value (:class:`bnfold.verification.equivalence.value_index.Known`).
3. ``Relu`` reads what the original's Relu reads: its output is the original's ``y``.

Had a row of ``Conv'`` been no multiple of c's, that would be noted (:class:`Parting`) and reading would go on from
the nearest value that the original has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.verification.equivalence.abstract_values import DEAD, LOOSE, Form, Matched, Numbers, Scale, aligned
from bnfold.verification.equivalence.interpreter import Reader, numbers_of
from bnfold.verification.equivalence.mismatch import Parting, channels_of
from bnfold.verification.equivalence.value_index import Known, width_of


class Follower(Reader):
    """Reads a folded model into the classes of an original that was read before.

    ``partings`` is where it parts from the original, ``untouched`` the nodes that are the original's, ``doubtful`` the
    values behind something unknown; ``raw`` holds the forms as they were read, before values that equal one of the
    original's take its form.
    """

    rounds = True

    def __init__(self, graphs: Graphs, original: Reader) -> None:
        super().__init__(graphs, original.classes)
        self.original = original
        self.pads, self.cuts, self.clips = original.pads, original.cuts, original.clips
        self.partings: list[Parting] = []
        self.raw: dict[Value, Form] = {}
        self.untouched: set[Node] = set()
        self.doubtful: set[Value | None] = set()
        self.known = Known(original)
        self._missed: bool = False
        self._settled: set[Value] = set()
        self._by_reads: dict[Hashable, list[Node]] = {}
        self._congruent: dict[Hashable, Node] = {}
        for value in list(original.forms):  # looking at one may read what makes it
            if (node := value.producer) is not None and value is node.live_outputs[0]:
                self._by_reads.setdefault((node.op, _bases(original, node)), []).append(node)
                if (key := _congruence(original, node)) is not None:
                    self._congruent.setdefault(key, node)

    def read_node(self, node: Node) -> None:
        """As a reader does; where the original has nothing of the kind, go on from its nearest value.

        A node that reads and does exactly what one of the original does makes the same, whatever it means.
        """
        key = _congruence(self, node)
        if key is not None and (twin := self._congruent.get(key)) is not None:
            for value, other in zip(node.outputs, twin.outputs, strict=False):
                if value is not None and other in self.original.forms:
                    self.forms[value] = self.raw[value] = self.original.forms[other]
                    self._settled.add(value)
            if all(value in self.forms for value in node.live_outputs):
                self.untouched.add(node)
                self._check_widths(node)
                return
        self._missed = False
        before = len(self.partings)
        super().read_node(node)
        doubtful = any(value in self.doubtful for value in node.inputs)
        for value in node.live_outputs:
            if (form := self.forms.get(value)) is not None:
                self.raw[value] = form
                if (same := self.equals(value)) is not None:
                    self.forms[value] = self.original.forms[same]
                    self._settled.add(value)
                elif doubtful:
                    self.doubtful.add(value)
        self._check_widths(node)
        if self._missed:
            del self.partings[before:]
            self._miss(node)
        elif doubtful and len(self.partings) > before:
            self.partings[before:] = [replace(parting, kind="unknown") for parting in self.partings[before:]]
        elif len(self.partings) > before:
            self._assume_right(node)

    def _check_widths(self, node: Node) -> None:
        """Note results that are narrower than the original ever holds the same value."""
        for value in node.live_outputs:
            form = self.forms.get(value)
            same = None if form is None else self.known.narrowed(form, width_of(value), self.eps(value))
            if same is not None:
                self.partings.append(Parting("unknown", node, same.producer, []))

    def _assume_right(self, node: Node) -> None:
        """Go on from a node whose numbers are wrong as if they were not."""
        if node in self.layers:
            meant = self.meant(self.layers[node].form, node.output, nearest=True)
            if meant is not None and self.layers[node].form is self.raw.get(node.output):
                self.forms[node.output] = self.original.forms[meant]
            return
        twin = self.partings[-1].twin
        for value, other in zip(node.outputs, twin.outputs if twin is not None else (), strict=False):
            if value is not None and other in self.original.forms:
                self.forms[value] = self.raw[value] = self.original.forms[other]

    def _miss(self, node: Node) -> None:
        """Note what the original has nothing of, and go on from the value that should have been there."""
        twin = self._twin(node)
        alike = twin is not None and twin.op == node.op not in SPELT
        reading = _bases if node in self.layers else _reads  # a layer's weights are judged as numbers
        alike = alike and twin is not None and reading(self.original, twin) == reading(self, node)
        alike = alike and twin is not None and self.attributes(node) != self.original.attributes(twin)
        self.partings.append(Parting("attributes" if alike else "unknown", node, twin, []))
        for made in node.live_outputs:
            named = self.known.named.get(made.name)
            known = named.producer if named is not None else None
            if named is not None and known is not None and (alike or known.op == node.op):
                self.forms[made] = self.original.forms[named]
            else:
                self.doubtful.add(made)
        if twin is not None:
            for value, other in zip(node.outputs, twin.outputs, strict=False):
                if value is not None and value in self.doubtful and other in self.original.forms:
                    self.forms[value] = self.original.forms[other]

    def eps(self, *values: Value | None) -> float:
        """As a reader does, or that of the original's narrower type for the same values."""
        own = super().eps(*values)
        bases = [self.forms[value].base for value in values if value is not None and value in self.forms]
        return max([own, *map(self.known.coarsest, bases)])

    def precision(self, weight: Value | None, key: Hashable) -> tuple[Any, float]:
        """That of the original's weight where it is coarser: a tool may fold in it and store in a wider type."""
        dtype, eps = super().precision(weight, key)
        for entry in self.classes.entries(key):
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
        found = self.classes.find(key, numbers, scale)
        if found is not None or node is None:
            return found or (self.classes.enter(key, numbers, node), None)
        near = None if numbers is None else self.classes.nearest(key, numbers, scale)
        if near is None:
            self._missed = True
            return self.classes.enter(key, numbers, node), None
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

    def unshifted(self, node: Node, form: Form, eps: float) -> Form:
        """As a reader does; a factor that is 1 but for rounding is 1."""
        found = super().unshifted(node, form, eps)
        plain = Form(found.base)
        same = found.agrees(plain, eps)
        return plain if same is not None and same.all() else found

    def realised(self, node: Node, form: Form, eps: float) -> int:
        """As a reader does; a map that no value of the original carries counts as the nearest one that does."""
        candidates = self.known.forms(form.base)
        agreeing = [other for other in candidates if (same := form.agrees(other, eps)) is not None and same.all()]
        if not agreeing and form.map.gain.ndim:  # what is left of a map that a layer has taken a part of
            numbers = numbers_of(form, eps)
            if (found := self.classes.find(("map", form.base), lambda: numbers, "none")) is not None:
                return found[0]
        if agreeing or not candidates:
            return self.original.realised(node, agreeing[0], eps) if agreeing else super().realised(node, form, eps)
        nearest = min(candidates, key=form.distance)
        same = form.agrees(nearest, eps)
        assert same is not None
        self._part(node, None, same)
        return self.original.realised(node, nearest, eps)

    def equals(self, value: Value) -> Value | None:
        """The value of the original that ``value`` equals, of the same name if several do."""
        form = self.forms.get(value)
        return None if form is None else self.known.equal(form, self.eps(value), value.name)

    def exactly(self, value: Value) -> Value | None:
        """As :meth:`equals`, but not where errors have added up on the way from layer to layer."""
        same, raw = self.equals(value), self.raw.get(value)
        if same is None or raw is None:
            return same
        known, eps = self.original.forms[same], self.eps(value)
        arrays = aligned(raw.gain_error, raw.shift_error, known.map.gain, known.map.shift, known.shift_error)
        gain_error, shift_error, gain, shift, terms = (np.abs(array) for array in arrays)
        fine = gain_error <= 4 * LOOSE * eps * gain + DEAD * gain.max(initial=0.0)
        fine = fine & (shift_error <= 4 * (terms + LOOSE * eps * shift) + DEAD * shift.max(initial=0.0))
        return same if fine.all() else None

    def meant(self, form: Form, value: Value, *, nearest: bool = False) -> Value | None:
        """The value of the original that a layer's output was meant to be: the one that it equals, or nearly does.

        None where the folded model carries another multiple of it between two layers, as it is free to: then most
        channels differ. ``nearest``: something behind the layer is wrong, so it was not meant to differ.
        """
        return self.known.meant(form, self.eps(value), value.name, nearest=nearest)

    def _part(self, node: Node, twin: Any, same: NDArray[np.bool_]) -> None:
        owner = twin if isinstance(twin, Node) else None
        if not (self.partings and self.partings[-1].node is node):
            self.partings.append(Parting("numbers", node, owner, channels_of(~same)))

    def _twin(self, node: Node) -> Node | None:
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


def _bases(reader: Reader, node: Node) -> tuple[int, ...]:
    """The classes of what a node reads, constants aside."""
    constants = node.graph.constants
    return tuple(
        reader.forms[value].base
        for value in node.inputs
        if value is not None and value in reader.forms and not constants.is_constant(value)
    )


def _reads(reader: Reader, node: Node) -> list[int]:
    """The classes of all that a node reads, constants included."""
    return [reader.form(value).base for value in node.inputs if value is not None]


def _congruence(reader: Reader, node: Node) -> Hashable | None:
    """All that decides what a node makes: operator, attributes, and the very values that it reads."""
    if node in reader.graphs.bodies:
        return None
    reads: list[Hashable] = []
    for value in node.inputs:
        if value is not None and value.graph.constants.is_constant(value):
            reads.append(reader.fingerprint(value))
        else:
            form = reader.form(value)
            gain, shift = form.map.gain, form.map.shift
            reads.append((form.base, gain.shape, gain.tobytes(), shift.shape, shift.tobytes()))
    return node.op, node.opset, reader.attributes(node), tuple(reads)
