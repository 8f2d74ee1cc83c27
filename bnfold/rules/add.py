"""Add, Sub, Sum, Mean and Neg: one gain for all operands, the shift to one of them; a constant takes any shift."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    constant_shape,
    split_operands,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.operands import aligned_constant, aligned_constants, outgrows, stretched, with_shape_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Assignments,
    Rewrite,
    Rule,
    RuleContext,
)


class _Shifted(Sequence[tuple[Value, Affine]]):
    """``plain``, but for the transform at ``place``: as many as there are operands, and none of them a list as long."""

    def __init__(self, plain: Assignments, place: int, transform: Affine) -> None:
        self._plain, self._place, self._map = plain, place, transform

    def __len__(self) -> int:
        return len(self._plain)

    def __getitem__(self, at: Any) -> Any:
        return [*self][at]

    def __iter__(self) -> Iterator[tuple[Value, Affine]]:
        for place, (value, transform) in enumerate(self._plain):
            yield value, self._map if place == self._place else transform


def _propagate_sum(node: Node, context: RuleContext) -> Alternatives:
    """Add, Sub, Sum and Mean: one gain for all; the shifts add up. A constant operand takes any shift."""
    if node.opset < 7 and node.op in ("Add", "Sub") and node.attr("broadcast", 0) and split_operands(node) is None:
        return Refusal("unknown-op", f"{node.label} broadcasts in the manner of opset {node.opset}")
    values = [value for value in node.inputs if value is not None]
    data = [value for value in values if not node.graph.constants.is_constant(value)]
    assigned = [context.proposed(value) for value in (node.output, *data)]
    gains = [transform.gain_only() for transform in assigned if transform is not None]
    if any(not gain.agrees(gains[0]) for gain in gains[1:]):
        return Refusal("consumers", f"the operands of {node.label} would need different scales")
    gain = gains[0]
    if refusal := stretched(node, data, [transform for transform in assigned if transform is not None]):
        return refusal
    if len(data) < len(values):
        return _constant_takes_shift(node, data, context, gain)
    signs = [-1.0 if node.op == "Sub" and index == 1 else 1.0 for index in range(len(values))]
    return _balance(node, data, signs, context, gain)


def _constant_takes_shift(node: Node, data: list[Value], context: RuleContext, gain: Affine) -> Alternatives:
    operands = split_operands(node)
    if operands is None or node.op == "Mean":
        held = aligned_constants(node, data)
        if isinstance(held, Refusal):
            return held
    else:
        aligned = aligned_constant(node, *operands)
        if isinstance(aligned, Refusal):
            return aligned
        if refusal := outgrows(node, aligned, context):
            return refusal
    return [[(value, gain) for value in (node.output, *data) if context.proposed(value) is None]]


def _terms(node: Node) -> float:
    """How many times its output a node's operands add up to."""
    return float(len(node.inputs)) if node.op == "Mean" else 1.0


def _balance(node: Node, data: list[Value], signs: list[float], context: RuleContext, gain: Affine) -> Alternatives:
    """Give every operand the gain, and the shift that is left over to one of those that are still free."""
    proposed, count = context.proposed(node.output), _terms(node)
    total = Affine.of(1.0, 0.0 if proposed is None else count * proposed.shift)
    free: dict[Value, float] = {}
    for value, sign in zip(data, signs, strict=True):
        transform = context.proposed(value)
        if transform is not None:
            total = Affine.of(1.0, -sign * transform.shift).after(total)
        else:
            free[value] = free.get(value, 0.0) + sign
    plain = [(value, gain) for value in free]
    if proposed is None:
        plain.append((node.output, gain))
    if _negligible(total, [context.proposed(value) for value in (node.output, *data)]):
        return [plain]
    takers = [index for index, (value, _) in enumerate(plain) if free.get(value, -count)]
    if not takers:
        return Refusal("consumers", f"the offsets at {node.label} don't add up")
    takers.sort(key=lambda index: _travels(plain[index][0], node))
    weights = {index: free.get(plain[index][0], -count) for index in takers}
    shifted = {weight: Affine.of(1.0, total.shift / weight).after(gain) for weight in set(weights.values())}
    return [_Shifted(plain, index, shifted[weight]) for index, weight in weights.items()]


def _travels(value: Value, node: Node) -> bool:
    """Return True if a shift is likely to travel far: a branch that this node alone reads can often take it at once."""
    return value is node.output or len(value.consumers) > 1


def _negligible(rest: Affine, transforms: list[Affine | None]) -> bool:
    largest = max((float(np.abs(m.shift).max(initial=0)) for m in transforms if m is not None), default=0.0)
    return bool((np.abs(rest.shift) <= 1e-14 * largest).all())


def _rewrite_sum(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """``k' = g k + h_y - h_x``, and its like for Sub; nothing to do without a constant."""
    operands = split_operands(node)
    if operands is None or node.op == "Mean":
        return _rewrite_constants(node, current)
    data, index = operands
    source = node.inputs[data]
    k = aligned_constant(node, data, index)
    assert source is not None and not isinstance(k, Refusal)
    before, after = current(source), current(node.output)
    if node.op == "Sub" and index == 1:
        move = Affine.of(1.0, before.shift).after(Affine.of(after.gain, -after.shift))
    elif node.op == "Sub":
        move = Affine.of(1.0, before.shift).after(after)
    else:
        move = Affine.of(1.0, -before.shift).after(after)
    return Rewrite({(node, index): with_shape_of(move(k), constant_shape(node, index))})


def _rewrite_constants(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """Each of several constants takes the gain; the first also ``n h_y`` less the shifts of the values."""
    data = [value for value in node.inputs if value is not None and not node.graph.constants.is_constant(value)]
    held = aligned_constants(node, data) if len(data) < len(node.inputs) else {}
    assert not isinstance(held, Refusal)
    after, rewrite = current(node.output), Rewrite()
    move = Affine.of(after.gain, _terms(node) * after.shift)
    for value in data:
        move = Affine.of(1.0, -current(value).shift).after(move)
    for index, k in held.items():
        rewrite.constants[node, index] = with_shape_of(move(k), constant_shape(node, index))
        move = move.gain_only()
    return rewrite


def _propagate_negation(node: Node, context: RuleContext) -> Alternatives:
    """``-x`` carries the same gain and the opposite shift."""
    source = node.inputs[0]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    known = before if before is not None else after
    if known is None:
        return parameter_refusal(node)
    opposite = Affine.of(known.gain, -known.shift)
    if before is None or after is None:
        return [[(node.output if after is None else source, opposite)]]
    if opposite.agrees(after):
        return ABSORBED
    return Refusal("consumers", f"Neg {node.name!r} would need two different transforms")


RULES = {
    "Add": Rule(
        "one scale for all operands, the offset to one of them; a constant takes any offset",
        "likewise; the offsets add up",
        _propagate_sum,
        _rewrite_sum,
    ),
    "Sub": Rule("as Add, with the sign", "as Add, with the sign", _propagate_sum, _rewrite_sum),
    "Sum": Rule("as Add, for any number of operands", "as Add", _propagate_sum, _rewrite_sum),
    "Mean": Rule(
        "as Add, for any number of operands, which share the offset",
        "likewise; the offsets add up, divided by the number of operands",
        _propagate_sum,
        _rewrite_sum,
    ),
    "Neg": Rule("the same scale, the opposite offset", "likewise", _propagate_negation),
}
