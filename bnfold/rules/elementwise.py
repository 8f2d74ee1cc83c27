"""Arithmetic: sums tie the gains of what they add, constants absorb, constant factors are maps themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.lazy_assignments import Shifted
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, constant, constant_shape, not_constant

Array = NDArray[np.float64]


def split_operands(node: Node) -> tuple[int, int] | None:
    """``(index of the data, index of the constant)`` of a binary operator; None if there are not both."""
    if len(node.inputs) != 2 or None in node.inputs:
        return None
    is_constant = [node.graph.constants.is_constant(value) for value in node.inputs]
    if is_constant[0] == is_constant[1]:
        return None
    return (0, 1) if is_constant[1] else (1, 0)


def aligned_constant(node: Node, data: int, index: int) -> Array | Refusal:
    """The constant operand in float64, aligned with every axis of the data operand.

    A constant merely as long as there are channels is not per channel: the broadcast is resolved against
    the data's true rank and shape, and one that would enlarge the result is refused.
    """
    if refusal := not_constant(node, index):
        return refusal
    source = node.inputs[data]
    assert source is not None
    values = constant(node, index).astype(np.float64)
    shape = source.shape
    if shape is None:
        if values.ndim == 0:
            return values
        return Refusal("unknown-shape", f"the rank of {source.name!r} is not known")
    if node.opset < 7:
        return _old_broadcast(node, values, shape)
    if values.ndim > len(shape):
        return Refusal("channel-axis", f"the constant of {node.op} {node.name!r} has more axes than its input")
    values = values.reshape((1,) * (len(shape) - values.ndim) + values.shape)
    return _fits(node, values, shape) or values


def _old_broadcast(node: Node, values: Array, shape: tuple[int | str | None, ...]) -> Array | Refusal:
    """Opsets 1 to 6: shapes are equal, or ``broadcast=1`` puts the second operand on ``axis``."""
    rank = len(shape)
    axis = rank - values.ndim
    if node.attr("broadcast", 0):
        axis = node.attr("axis", axis)
        axis += rank if axis < 0 else 0
    behind = rank - axis - values.ndim
    if axis < 0 or behind < 0 or (not node.attr("broadcast", 0) and values.ndim != rank):
        return Refusal("unknown-shape", f"the operands of {node.op} {node.name!r} don't broadcast")
    values = values.reshape((1,) * axis + values.shape + (1,) * behind)
    return _fits(node, values, shape) or values


def _outgrows(node: Node, aligned: Array, context: RuleContext) -> Refusal | None:
    """Before opset 7 a constant can't grow along an axis of length 1: its broadcast is fixed by its shape."""
    if node.opset >= 7:
        return None
    for value in (*node.inputs, node.output):
        map_ = context.proposed(value)
        for axis, size in enumerate(() if map_ is None else map_.gain.shape):
            if size > 1 and aligned.shape[axis : axis + 1] != (size,):
                return Refusal(
                    "channel-axis", f"the constant of {node.op} {node.name!r} can't grow in opset {node.opset}"
                )
    return None


def _fits(node: Node, values: Array, shape: tuple[int | str | None, ...]) -> Refusal | None:
    for size, dim in zip(values.shape, shape, strict=True):
        if size != 1 and size != dim:
            code = "channel-axis" if isinstance(dim, int) else "unknown-shape"
            return Refusal(code, f"the constant of {node.op} {node.name!r} may enlarge its input")
    return None


def as_affine(node: Node) -> tuple[Value, Affine] | Refusal | None:
    """The node as a map of its data operand: Add, Sub, Mul or Div with a constant. None for anything else."""
    operands = split_operands(node) if node.op in RULES and node.op in ("Add", "Sub", "Mul", "Div") else None
    if operands is None or (node.op == "Div" and operands[0] == 1):
        return None
    k = aligned_constant(node, *operands)
    if isinstance(k, Refusal):
        return k
    source = node.inputs[operands[0]]
    assert source is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        if node.op in ("Mul", "Div"):
            return source, Affine.of(k if node.op == "Mul" else 1.0 / k, 0.0)
    if node.op == "Add":
        return source, Affine.of(1.0, k)
    return source, Affine.of(1.0, -k) if operands[0] == 0 else Affine.of(-1.0, k)


def _propagate_sum(node: Node, context: RuleContext) -> Alternatives:
    """Add, Sub and Sum: one gain for all; the shifts add up. A constant operand takes any shift."""
    if node.opset < 7 and node.op != "Sum" and node.attr("broadcast", 0) and split_operands(node) is None:
        return Refusal("unknown-op", f"{node.op} {node.name!r} broadcasts in the manner of opset {node.opset}")
    values = [value for value in node.inputs if value is not None]
    data = [value for value in values if not node.graph.constants.is_constant(value)]
    assigned = [context.proposed(value) for value in (node.output, *data)]
    gains = [map_.gain_only() for map_ in assigned if map_ is not None]
    if any(not gain.agrees(gains[0]) for gain in gains[1:]):
        return Refusal("consumers", f"the operands of {node.op} {node.name!r} would need different scales")
    gain = gains[0]
    if refusal := _stretched(node, data, [map_ for map_ in assigned if map_ is not None]):
        return refusal
    if len(data) < len(values):
        return _constant_takes_shift(node, data, context, gain)
    signs = [-1.0 if node.op == "Sub" and index == 1 else 1.0 for index in range(len(values))]
    return _balance(node, data, signs, context, gain)


def _constant_takes_shift(node: Node, data: list[Value], context: RuleContext, gain: Affine) -> Alternatives:
    index = next(i for i, value in enumerate(node.inputs) if value not in data)
    if len(data) != 1 or len(node.inputs) != 2:
        return Refusal("unknown-op", f"{node.op} {node.name!r} adds several values and constants")
    if refusal := not_constant(node, index):
        return refusal
    aligned = aligned_constant(node, 1 - index, index)
    if isinstance(aligned, Refusal):
        return aligned
    if refusal := _outgrows(node, aligned, context):
        return refusal
    return [[(value, gain) for value in (node.output, *data) if context.proposed(value) is None]]


def _stretched(node: Node, data: list[Value], maps: list[Affine]) -> Refusal | None:
    """A map passes a sum only if no operand is stretched along an axis on which the map varies."""
    varying = dict.fromkeys((axis, size) for map_ in maps for axis, size in enumerate(map_.gain.shape) if size > 1)
    for axis, size in varying:
        for value in (node.output, *data):
            shape = value.shape
            if shape is None or len(shape) != node.output.rank or shape[axis] != size:
                return Refusal("unknown-shape", f"{value.name!r} may be broadcast at {node.op} {node.name!r}")
    return None


def _balance(node: Node, data: list[Value], signs: list[float], context: RuleContext, gain: Affine) -> Alternatives:
    """Give every operand the gain, and the shift that is left over to one of those that are still free."""
    proposed = context.proposed(node.output)
    total = Affine.of(1.0, 0.0 if proposed is None else proposed.shift)
    free: dict[Value, float] = {}
    for value, sign in zip(data, signs, strict=True):
        map_ = context.proposed(value)
        if map_ is not None:
            total = Affine.of(1.0, -sign * map_.shift).after(total)
        else:
            free[value] = free.get(value, 0.0) + sign
    plain = [(value, gain) for value in free]
    if proposed is None:
        plain.append((node.output, gain))
    if _negligible(total, [context.proposed(value) for value in (node.output, *data)]):
        return [plain]
    takers = [index for index, (value, _) in enumerate(plain) if free.get(value, -1.0)]
    if not takers:
        return Refusal("consumers", f"the shifts at {node.op} {node.name!r} don't add up")
    takers.sort(key=lambda index: _travels(plain[index][0], node))
    weights = {index: free.get(plain[index][0], -1.0) for index in takers}
    shifted = {weight: Affine.of(1.0, total.shift / weight).after(gain) for weight in set(weights.values())}
    return [Shifted(plain, index, shifted[weight]) for index, weight in weights.items()]


def _travels(value: Value, node: Node) -> bool:
    """True if a shift is likely to travel far: a branch that this node alone reads can often take it at once."""
    return value is node.output or len(value.readers) > 1


def _negligible(rest: Affine, maps: list[Affine | None]) -> bool:
    largest = max((float(np.abs(m.shift).max(initial=0)) for m in maps if m is not None), default=0.0)
    return bool((np.abs(rest.shift) <= 1e-14 * largest).all())


def _rewrite_sum(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """``k' = g k + h_y - h_x``, and its like for Sub; nothing to do without a constant."""
    operands = split_operands(node)
    if operands is None:
        return Rewrite()
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
    return Rewrite({(node, index): like(move(k), constant_shape(node, index))})


def like(values: Array, shape: tuple[int, ...]) -> Array:
    """``values`` without leading axes of length 1 that the old constant did not have."""
    if values.size == int(np.prod(shape)):
        return values.reshape(shape)
    while values.ndim > len(shape) and values.shape[0] == 1:
        values = values[0]
    return values


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
    return Refusal("consumers", f"Neg {node.name!r} would need two different maps")


def _propagate_product(node: Node, context: RuleContext) -> Alternatives:
    """Mul and Div by a constant: it takes any gain; a shift goes on, scaled."""
    operands = split_operands(node)
    if operands is None or (node.op == "Div" and operands[0] == 1):
        return Refusal("nonlinear", f"{node.op} {node.name!r} multiplies two computed values")
    k = aligned_constant(node, *operands)
    if isinstance(k, Refusal):
        return k
    source = node.inputs[operands[0]]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    unsuited = [map_ for map_ in (before, after if node.op == "Div" else None) if map_ is not None]
    if any(not map_.invertible for map_ in unsuited):
        return Refusal("consumers", f"a scale of zero can't be undone by {node.op} {node.name!r}")
    if not (k != 0).all() or not np.isfinite(k).all():
        return Refusal("nonlinear", f"{node.op} {node.name!r} has a factor of zero")
    if refusal := _outgrows(node, k, context):
        return refusal
    own = Affine.of(k if node.op == "Mul" else 1.0 / k, 0.0)
    now = context.current(node.output).gain_only().after(own).after(context.current(source).gain_only().inverse())
    if after is None:
        assert before is not None
        passed = now.after(before.gain_only().inverse()).after(Affine.of(1.0, before.shift))
        return [[(node.output, passed.shift_only())]] if passed.has_shift else ABSORBED
    scaled = after.gain_only().after(now)
    if before is None:
        if not after.has_shift:
            return ABSORBED
        if not scaled.invertible:
            return Refusal("consumers", f"{node.op} {node.name!r} has no constant to take a shift")
        return [[(source, scaled.inverse().after(after.shift_only()).shift_only())]]
    arrived = scaled.after(before.gain_only().inverse()).after(Affine.of(1.0, before.shift))
    if arrived.shift_only().agrees(after.shift_only()):
        return ABSORBED
    return Refusal("consumers", f"{node.op} {node.name!r} has no constant to take a shift")


def _rewrite_product(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    operands = split_operands(node)
    assert operands is not None
    data, index = operands
    source, k = node.inputs[data], aligned_constant(node, data, index)
    assert source is not None and not isinstance(k, Refusal)
    ratio = current(node.output).gain_only().after(current(source).gain_only().inverse())
    if ratio.agrees(IDENTITY):
        return Rewrite()
    factor = ratio if node.op == "Mul" else ratio.inverse()
    return Rewrite({(node, index): like(factor(k), constant_shape(node, index))})


RULES = {
    "Add": Rule(
        "one gain for all operands, the shift to one of them; a constant takes any shift",
        "likewise; the shifts add up",
        _propagate_sum,
        _rewrite_sum,
    ),
    "Sub": Rule("as Add, with the sign", "as Add, with the sign", _propagate_sum, _rewrite_sum),
    "Neg": Rule("the same gain, the opposite shift", "likewise", _propagate_negation),
    "Sum": Rule("as Add, for any number of operands", "as Add", _propagate_sum, _rewrite_sum),
    "Mul": Rule(
        "a constant factor takes any gain; a shift goes on, divided by it",
        "a constant factor takes any gain but 0; a shift goes on, multiplied by it",
        _propagate_product,
        _rewrite_product,
    ),
    "Div": Rule("as Mul, by a constant divisor", "as Mul", _propagate_product, _rewrite_product),
}
