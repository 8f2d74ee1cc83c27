"""What a transform costs: how much more a value is rounded that carries it.

A runtime rounds what it stores to a relative precision. A value ``v`` that carries ``g v + h`` is rounded at the size
of that, and so, once its consumers have undone it, at the size of ``v + h / g``; the original rounds it at the size of
``v``. Their ratio says how many times the rounding error grows there. An error that the original makes anyway may be as
large after the fold: what an affine operator reads is rounded too, and where one node alone reads the value, or each
node a slice of it, so is what that makes of it. All sizes are estimates (:mod:`bnfold.planner.activation_sizes`). Where
one can't be made, since shapes contradict each other, it is not known, and nothing is refused for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import exponent_of, slices
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import is_float, range_of
from bnfold.planner.activation_sizes import (
    MOVES,
    RECTIFIERS,
    SUMS,
    ActivationSizes,
    is_made,
    per_channel,
    readers,
    statistics_of,
    together,
)
from bnfold.rules.forward_transform import carried, forward_transform
from bnfold.rules.layout import length_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.reduction import reduced_axes
from bnfold.rules.rule import INCONSISTENT_MODEL

Array = NDArray[np.float64]

WORST = 2.0
"""How many times larger the rounding error of a value may be, over all channels (root mean square).

Verification allows three times the expected error in all, which a network of such values keeps within: errors of
rounding are independent, so that a network in which each is at most twice as large errs at most twice as much.
"""

WORST_CHANNEL = 8.0
"""The same of one channel: what verification allows of inputs on which errors don't average out."""

TAIL = 8.0
"""Deviations from the mean up to which activations must stay within the range of their type."""

FARTHEST = 16
"""Operators behind a value up to which it is looked for what the original rounds."""


class Conditioning:
    """Judges transforms of one graph's values."""

    def __init__(self) -> None:
        self._sizes = ActivationSizes()
        self._tolerated: dict[Value, Array] = {}

    def refusal(self, value: Value, total: Affine) -> Refusal | None:
        """Return why ``value`` can't carry the transform ``total`` without losing accuracy; None where it can."""
        dtype = value.dtype
        if dtype is None or not is_float(dtype) or not value.consumers:
            return None
        smallest, largest = range_of(dtype)
        size = np.abs(total.gain)
        if not total.has_shift and (size > np.sqrt(smallest)).all() and (size < np.sqrt(largest)).all():
            return None
        try:
            with np.errstate(all="ignore"):
                found = self._refusal(value, total, (smallest, largest))
            return None if found is not None and found.reason == "conditioning" and _is_centre(value) else found
        except (NotEvaluable, *INCONSISTENT_MODEL):
            return None

    def _refusal(self, value: Value, total: Affine, limits: tuple[float, float]) -> Refusal | None:
        smallest, largest = limits
        size, tolerated = self._sizes.of(value), self._tolerance(value, smallest)
        gain, deviation = together(total.gain, size.gain)
        shift, mean = together(total.shift, size.shift)
        living = np.abs(gain) > 0
        offset = np.where(living, shift / gain, 0.0)
        stored, plain = np.abs(gain * mean + shift) + TAIL * np.abs(gain) * deviation, np.abs(mean) + TAIL * deviation
        if ((stored > largest) & (plain < largest)).any():
            return Refusal("overflow", f"{value.name!r} would hold numbers of {stored.max():.3g}")
        noise = np.square(mean + offset) + np.square(deviation) + np.square(smallest / gain)
        noise, allowed = together(noise, tolerated)
        ratios = np.where(living.reshape(living.shape + (1,) * (noise.ndim - living.ndim)), noise / allowed, 0.0)
        worst, pooled = float(np.sqrt(ratios.max(initial=0.0))), float(np.sqrt(ratios.mean())) if ratios.size else 0.0
        if pooled > WORST or worst > WORST_CHANNEL:
            times = pooled if pooled > WORST else worst
            return Refusal("conditioning", f"{value.name!r} would be rounded {times:.3g} times as coarsely")
        return None

    def _tolerance(self, value: Value, smallest: float) -> Array:
        """The square of the size at which the original rounds a value, or what is made of it, per channel."""
        pending, begun = [(value, 0)], set[Value]()
        while pending:
            at, depth = pending[-1]
            behind = _behind(at) if depth < FARTHEST else []
            needed = [] if at in begun else [node.output for node in behind if node.output not in self._tolerated]
            begun.add(at)
            if needed:
                pending += [(other, depth + 1) for other in needed]
                continue
            pending.pop()
            if at not in self._tolerated:
                own = self._square(at, smallest)
                self._tolerated[at] = _known_sum(own, self._made_behind(at, behind))
        return self._tolerated[value]

    def _made_behind(self, value: Value, behind: list[Node]) -> Array | None:
        """What the nodes behind a value make of it is rounded too: the least of that; None where it is not known."""
        try:
            return self._least(value, behind)
        except (NotEvaluable, *INCONSISTENT_MODEL):
            return None

    def _least(self, value: Value, behind: list[Node]) -> Array | None:
        if len(behind) == 1:
            tolerated = self._tolerated.get(behind[0].output)
            return None if tolerated is None else _pulled_back(behind[0], value, tolerated)
        least = np.full((), np.inf)
        for node in behind:
            tolerated = self._tolerated.get(node.output)
            part = None if tolerated is None else _embedded(node, value, tolerated)
            if part is None:
                return None
            least = np.minimum(*together(least, part))
        return np.where(np.isinf(least), 0.0, least)

    def _square(self, value: Value, smallest: float) -> Array:
        """The square of the size at which a value is rounded, and what it is computed from while that is one value."""
        path = [value]
        while len(path) < FARTHEST and (source := _source(path[-1])) is not None:
            path.append(source)
        passed: Array | None = None
        for at, after in zip(reversed(path), [*reversed(path[:-1]), None], strict=True):
            size = self._sizes.of(at)
            square = _known_sum(np.square(size.gain) + np.square(size.shift) + smallest**2, passed)
            try:
                passed = None if after is None else _passed_on(after, square)
            except INCONSISTENT_MODEL:
                passed = None
        return square


def _is_centre(value: Value) -> bool:
    """Return True for a mean that is only taken from what it is the mean of, to add up the squares of the rest.

    An error ``e`` of it is lost there: ``sum (x - m - e)^2 = sum (x - m)^2 + n e^2``, where ``m`` is the mean of n.
    """
    mean = value.producer
    if mean is None or mean.op != "ReduceMean" or not mean.attr("keepdims", 1) or not readers(value):
        return False
    source = mean.inputs[0]
    axes = None if source is None else reduced_axes(mean, source)
    for minus in readers(value) if axes is not None else ():
        if minus.op != "Sub" or list(minus.inputs) != [source, value] or not is_made(minus):
            return False
        for node in readers(minus.output) or [minus]:
            added = readers(node.output) if _squares(node) else [node]
            if not added or any(not _adds(end, axes, squares=end is node) for end in added):
                return False
    return axes is not None


def _squares(node: Node) -> bool:
    """Return True for a value times itself, or to the power of two."""
    return is_made(node) and (
        (node.op == "Mul" and node.inputs[0] is node.inputs[1]) or (node.op == "Pow" and exponent_of(node) == 2)
    )


def _adds(node: Node, axes: list[int] | None, *, squares: bool) -> bool:
    """Return True if a node adds up what it reads along ``axes``, or the ``squares`` of that."""
    ops = ("ReduceL2", "ReduceSumSquare") if squares else ("ReduceMean", "ReduceSum")
    return node.op in ops and node.inputs[0] is not None and reduced_axes(node, node.inputs[0]) == axes


def _known_sum(own: Array, more: Array | None) -> Array:
    """The sum, or the first alone where the second is not known, or of another number of channels."""
    if more is None:
        return own
    try:
        own, more = together(own, more)
    except INCONSISTENT_MODEL:
        return own
    return own + more


def _behind(value: Value) -> list[Node]:
    """Return the one node that reads a value, or all that do where each reads a slice of it."""
    found = readers(value)
    if not all(map(is_made, found)) or (len(found) > 1 and any(node.op != "Slice" for node in found)):
        return []
    return found


def _embedded(node: Node, source: Value, behind: Array) -> Array | None:
    """The square of an error of a slice, as one of what it is cut from: infinite for what is not in it."""
    cut = slices(node)
    if cut is None or len(cut) != 1:
        return None
    ((axis, span),) = cut
    size = length_of(source, axis)
    if size is None or span is None:
        return None
    behind = behind.reshape(behind.shape + (1,) * (axis + 1 - behind.ndim))
    full = np.full((*behind.shape[:axis], size, *behind.shape[axis + 1 :]), np.inf)
    full[(*[slice(None)] * axis, span)] = behind
    return full


def _source(value: Value) -> Value | None:
    """Return the one value that another is computed from, entry by entry."""
    node = value.producer
    if node is None or value is not node.outputs[0]:
        return None
    if (step := _step(node)) is not None:
        return step[0]
    return node.inputs[0] if node.op in RECTIFIERS or (node.op in MOVES and node.op != "Concat") else None


def _passed_on(value: Value, square: Array) -> Array | None:
    """The square of an error of what a value is computed from, as one of the value itself; None if that isn't known."""
    node = value.producer
    assert node is not None
    if (step := _step(node)) is not None:
        square, gain = together(square, step[1].gain)
        return square * np.square(gain)
    if node.op in RECTIFIERS:
        return square
    found = (forward_transform(node, Affine.of(np.sqrt(square), 0.0)) or {}).get(value)
    return None if found is None else np.square(found.gain)


def _step(node: Node) -> tuple[Value, Affine] | None:
    """Return the one value that a node reads and the transform that it makes of it; None for any other node."""
    try:
        norm = statistics_of(node)
        if norm is not None and node.inputs[0] is not None:
            return node.inputs[0], norm.affine()
        step = per_channel(node)
    except (NotEvaluable, *INCONSISTENT_MODEL):
        return None
    return None if isinstance(step, Refusal) else step


def _pulled_back(node: Node, source: Value, behind: Array) -> Array | None:
    """The square of an error of what ``node`` makes, as one of what it reads; None where that is not known."""
    if (step := _step(node)) is not None:
        behind, gain = together(behind, step[1].gain)
        return behind / np.square(gain)
    constants = node.graph.constants
    if node.op in SUMS and not any(v is not None and constants.is_constant(v) for v in node.inputs):
        same = all(v is None or v.shape == node.output.shape for v in node.inputs)
        return behind if same else None
    if node.op in ("Add", "Sub", "Mul", "Div"):  # of a constant too large to be evaluated for an estimate
        return None
    found = (carried(node, {node.output: Affine.of(np.sqrt(behind), 0.0)}) or {}).get(source)
    return None if found is None else np.square(found.gain)
