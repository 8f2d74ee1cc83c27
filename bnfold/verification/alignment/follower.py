"""Read a folded model along its original: which class each value has there, and where the two part."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnfold.graph import Node, Value
from bnfold.graph.onnx import OnnxGraphs
from bnfold.verification.alignment.forms import DEAD, LOOSE, Form, Matched, Numbers, Scale, aligned
from bnfold.verification.alignment.reader import Reader


@dataclass(frozen=True)
class Parting:
    """A node of the folded model that does not compute what the original computes.

    ``numbers``: the operator is there, its numbers (or those of the layers before it) are others. ``attributes``: the
    operator is there and set otherwise. ``unknown``: nothing in the original reads the same values in this way.
    ``twin`` is the node of the original that it was compared with.
    """

    kind: Literal["numbers", "attributes", "unknown"]
    node: Node
    twin: Node | None
    channels: list[int]

    @property
    def name(self) -> str:
        """The node, for a message."""
        return f"{self.node.op} {self.node.name!r}"


class Follower(Reader):
    """Reads a folded model into the classes of an original that was read before.

    ``partings`` is where it parts from the original, ``untouched`` the nodes that are the original's, ``doubtful`` the
    values behind something unknown; ``raw`` holds the forms as they were read, before values that equal one of the
    original's take its form.
    """

    rounds = True

    def __init__(self, graphs: OnnxGraphs, original: Reader) -> None:
        super().__init__(graphs, original.classes)
        self.original = original
        self.pads, self.cuts, self.clips = original.pads, original.cuts, original.clips
        self.partings: list[Parting] = []
        self.raw: dict[Value, Form] = {}
        self.untouched: set[Node] = set()
        self.doubtful: set[Value | None] = set()
        self._missed: bool = False
        self._coarse: dict[int, float] = {}
        for value, form in original.forms.items():
            self._coarse[form.base] = max(self._coarse.get(form.base, 0.0), original.eps(value))
        self.named = {value.name: value for value in original.forms}
        self._by_reads: dict[Hashable, list[Node]] = {}
        self._congruent: dict[Hashable, Node] = {}
        for value in original.forms:
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
            width = _width(value)
            if form is None or not width:
                continue
            self.same_class(form)
            eps = self.eps(value)
            same = [
                v for v, f in self._by_base.get(form.base, ()) if (a := form.agrees(f, eps)) is not None and a.all()
            ]
            if same and all(_width(other) > width for other in same):
                self.partings.append(Parting("unknown", node, same[0].producer, []))

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
        self.partings.append(Parting("attributes" if alike else "unknown", node, twin, []))
        for made in node.live_outputs:
            named = self.named.get(made.name)
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
        return max([own, *(self._coarse.get(base, 0.0) for base in bases)])

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
        candidates = self.same_class(form)
        agreeing = [other for other in candidates if (same := form.agrees(other, eps)) is not None and same.all()]
        if agreeing or not candidates:
            return self.original.realised(node, agreeing[0], eps) if agreeing else super().realised(node, form, eps)
        nearest = min(candidates, key=form.distance)
        same = form.agrees(nearest, eps)
        assert same is not None
        self._part(node, None, same)
        return self.original.realised(node, nearest, eps)

    def same_class(self, form: Form) -> list[Form]:
        """The forms of the original's values that are of the same class."""
        if not hasattr(self, "_by_base"):
            self._by_base: dict[int, list[tuple[Value, Form]]] = {}
            for value, other in self.original.forms.items():
                self._by_base.setdefault(other.base, []).append((value, other))
        return [other for _, other in self._by_base.get(form.base, ())]

    def equals(self, value: Value) -> Value | None:
        """The value of the original that ``value`` equals, of the same name if several do."""
        form = self.forms.get(value)
        return None if form is None else self._equal(form, value)

    def _equal(self, form: Form, value: Value) -> Value | None:
        self.same_class(form)
        eps = self.eps(value)
        found = None
        for other, known in self._by_base.get(form.base, ()):
            same = form.agrees(known, eps)
            if same is not None and same.all():
                if other.name == value.name:
                    return other
                found = found or other
        return found

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
        if (same := self._equal(form, value)) is not None:
            return same
        self.same_class(form)
        best, share = None, 0.0 if nearest else 0.5
        for other, known in self._by_base.get(form.base, ()):
            agreed = form.agrees(known, self.eps(value))
            part = 0.0 if agreed is None else float(agreed.mean())
            closer = best is None or form.distance(known) < form.distance(self.original.forms[best])
            if part > share or (part == share and closer and (nearest or part > 0)):
                best, share = other, part
        return best

    def _part(self, node: Node, twin: Any, same: NDArray[np.bool_]) -> None:
        owner = twin if isinstance(twin, Node) else None
        if not (self.partings and self.partings[-1].node is node):
            self.partings.append(Parting("numbers", node, owner, channels_of(~same)))

    def _twin(self, node: Node) -> Node | None:
        """The original's node to compare with: one that makes a value of the same name, or reads the same values."""
        for value in node.live_outputs:
            known = self.named.get(value.name)
            if known is not None and known.producer is not None and known.producer.op == node.op:
                return known.producer
        reading = self._by_reads.get((node.op, _bases(self, node)), ())
        return (
            reading[0]
            if reading
            else next((self.named[v.name].producer for v in node.live_outputs if v.name in self.named), None)
        )


SPELT = frozenset(
    """
    LSTM GRU RNN MaxPool AveragePool LpPool Reshape Slice Pad Resize Upsample Expand Squeeze Unsqueeze Tile Gather Split
    ReduceMean ReduceSum ReduceMax ReduceMin Cast ConstantOfShape Range Shape Size Where Dropout If Loop Scan
    """.split()  # noqa: SIM905
)
"""Operators whose attributes and constants can be written in several ways that mean the same."""


WIDTHS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


def _width(value: Value) -> int:
    """The bits of a value's float type; 0 if it has none, or it is not known."""
    return 0 if value.dtype is None else WIDTHS.get(value.dtype.name, 0)


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


def channels_of(wrong: NDArray[np.bool_]) -> list[int]:
    """The channels, on the last axis along which a map varies, that are wrong."""
    if wrong.ndim == 0 or wrong.size == 1:
        return []
    others = tuple(range(wrong.ndim - 1))
    return [int(channel) for channel in np.flatnonzero(wrong.any(axis=others))]
