"""What a transform costs: how much more a value is rounded that carries it.

A runtime rounds what it stores to a relative precision. A value ``v`` that carries ``g v + h`` is rounded at the size
of that, and so, once its consumers have undone it, at the size of ``v + h / g``; the original rounds it at the size of
``v``. Their ratio says how many times the rounding error grows there. An error that the original makes anyway may be as
large after the fold: what an affine operator reads is rounded too, and where one node alone reads the value, so is what
that makes of it. All sizes are estimates (:mod:`bnfold.planner.activation_sizes`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine, leading
from bnfold.numerics.rounding import is_float, range_of
from bnfold.planner.activation_sizes import (
    RECTIFIERS,
    SUMS,
    ActivationSizes,
    alone,
    is_made,
    per_channel,
    statistics_of,
)
from bnfold.rules.forward_transform import carried
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL

Array = NDArray[np.float64]

WORST = 1.5
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
        with np.errstate(all="ignore"):
            return self._refusal(value, total, (smallest, largest))

    def _refusal(self, value: Value, total: Affine, limits: tuple[float, float]) -> Refusal | None:
        smallest, largest = limits
        size, tolerated = self._sizes.of(value), self._tolerance(value, smallest)
        gain, deviation = leading(total.gain, size.gain)
        shift, mean = leading(total.shift, size.shift)
        living = np.abs(gain) > 0
        offset = np.where(living, shift / gain, 0.0)
        stored, plain = np.abs(gain * mean + shift) + TAIL * np.abs(gain) * deviation, np.abs(mean) + TAIL * deviation
        if ((stored > largest) & (plain < largest)).any():
            return Refusal("overflow", f"{value.name!r} would hold numbers of {stored.max():.3g}")
        noise = np.square(mean + offset) + np.square(deviation) + np.square(smallest / gain)
        noise, allowed = leading(noise, tolerated)
        ratios = np.where(living.reshape(living.shape + (1,) * (noise.ndim - living.ndim)), noise / allowed, 0.0)
        worst, pooled = float(np.sqrt(ratios.max(initial=0.0))), float(np.sqrt(ratios.mean())) if ratios.size else 0.0
        if pooled > WORST or worst > WORST_CHANNEL:
            times = pooled if pooled > WORST else worst
            return Refusal("conditioning", f"{value.name!r} would be rounded {times:.3g} times as coarsely")
        return None

    def _tolerance(self, value: Value, smallest: float) -> Array:
        """The square of the size at which the original rounds a value, or what alone is made of it, per channel."""
        path: list[tuple[Value, Node]] = []
        at = value
        while at not in self._tolerated:
            reader = alone(at)
            if reader is None or not is_made(reader) or len(path) == FARTHEST:
                self._tolerated[at] = self._square(at, smallest)
                break
            path.append((at, reader))
            at = reader.output
        for at, reader in reversed(path):
            behind = _pulled_back(reader, at, self._tolerated[reader.output])
            own, behind = leading(self._square(at, smallest), np.zeros(()) if behind is None else behind)
            self._tolerated[at] = own + behind
        return self._tolerated[value]

    def _square(self, value: Value, smallest: float) -> Array:
        """The square of the size at which a value is rounded, and what it is computed from while that is one value."""
        path = [(value, np.ones(()))]
        while len(path) < FARTHEST and (source := _source(path[-1][0])) is not None:
            path.append(source)
        square, factor = np.zeros(()), np.zeros(())
        for at, next_factor in reversed(path):
            size = self._sizes.of(at)
            own, passed = leading(np.square(size.gain) + np.square(size.shift) + smallest**2, square)
            factor, passed = leading(factor, passed)
            own, passed = leading(own, passed * np.square(factor))
            square, factor = own + passed, next_factor
        return square


def _source(value: Value) -> tuple[Value, Array] | None:
    """Return the one value that another is computed from, entry by entry, and by which factor its error arrives."""
    node = value.producer
    if node is None or value is not node.outputs[0]:
        return None
    if (step := _step(node)) is not None:
        return step[0], step[1].gain
    if node.op not in RECTIFIERS or node.inputs[0] is None:
        return None
    return node.inputs[0], np.ones(())


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
        behind, gain = leading(behind, step[1].gain)
        return behind / np.square(gain)
    constants = node.graph.constants
    if node.op in SUMS and not any(v is not None and constants.is_constant(v) for v in node.inputs):
        same = all(v is None or v.shape == node.output.shape for v in node.inputs)
        return behind if same else None
    if node.op in ("Add", "Sub", "Mul", "Div"):  # of a constant too large to be evaluated for an estimate
        return None
    found = (carried(node, {node.output: Affine.of(np.sqrt(behind), 0.0)}) or {}).get(source)
    return None if found is None else np.square(found.gain)
