"""Mul and Div: a constant factor takes any gain, a shift goes on, scaled; of two computed values the gains multiply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    constant_shape,
    split_operands,
)
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.operands import aligned_constant, outgrows, with_shape_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
)


def _propagate_product(node: Node, context: RuleContext) -> Alternatives:
    """Mul and Div by a constant: it takes any gain; a shift goes on, scaled."""
    operands = split_operands(node)
    if operands is None:
        return _of_two_values(node, context)
    if node.op == "Div" and operands[0] == 1:
        return Refusal("nonlinear", f"{node.label} divides by its input")
    k = aligned_constant(node, *operands)
    if isinstance(k, Refusal):
        return k
    source = node.inputs[operands[0]]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    unsuited = [transform for transform in (before, after if node.op == "Div" else None) if transform is not None]
    if any(not transform.invertible for transform in unsuited):
        return Refusal("consumers", f"a scale of zero can't be undone by {node.label}")
    if not (k != 0).all() or not np.isfinite(k).all():
        return Refusal("nonlinear", f"{node.label} has a factor of zero")
    if refusal := outgrows(node, k, context):
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
            return Refusal("consumers", f"{node.label} has no constant to take an offset")
        return [[(source, scaled.inverse().after(after.shift_only()).shift_only())]]
    arrived = scaled.after(before.gain_only().inverse()).after(Affine.of(1.0, before.shift))
    if arrived.shift_only().agrees(after.shift_only()):
        return ABSORBED
    return Refusal("consumers", f"{node.label} has no constant to take an offset")


def _of_two_values(node: Node, context: RuleContext) -> Alternatives:
    """``(a x) (b y) = a b x y``; no offset passes."""
    values = [value for value in node.inputs if value is not None]
    given = {index: found for index, value in enumerate(values) if (found := context.proposed(value)) is not None}
    after = context.proposed(node.output)
    around = [*given.values(), *([] if after is None else [after])]
    old = node.opset < 7 and node.attr("broadcast", 0)
    if len(values) != 2 or old or any(transform.has_shift for transform in around):
        return Refusal("nonlinear", f"{node.label} has two non-constant inputs")
    if any(not transform.invertible for transform in around) and node.op == "Div":
        return Refusal("consumers", f"a scale of zero can't be undone by {node.label}")
    passing = {index: found for index, found in given.items() if not found.is_identity}
    if passing:
        carried = IDENTITY
        for index, found in passing.items():
            lifted = _lifted(found, values[index], node.output)
            if lifted is None:
                return Refusal("unknown-shape", f"the rank of {values[index].name!r} is not known")
            carried = (lifted.inverse() if node.op == "Div" and index else lifted).after(carried)
        if after is None:
            return [[(node.output, carried)]]
        return ABSORBED if carried.agrees(after) else Refusal("consumers", f"{node.label} would need two transforms")
    if after is None or after.is_identity:
        return ABSORBED
    if values[0] is values[1]:
        if node.op == "Div" or not after.positive or given:
            return Refusal("nonlinear", f"{node.label} of one value does not carry the transform")
        return [[(values[0], Affine.of(np.sqrt(after.gain), 0.0))]]
    free = [index for index in (0, 1) if index not in given and _takes(values[index], after, node.output)]
    if not free:
        return Refusal("consumers", f"{node.label} has no factor that could take the scale")
    chosen = [(values[index], after.inverse() if node.op == "Div" and index else after) for index in free]
    return [[(value, _lowered(transform, value, node.output))] for value, transform in chosen]


def _lifted(transform: Affine, value: Value, output: Value) -> Affine | None:
    """Return a factor's transform as one of the product, which may have more axes before; None if that is not known."""
    if transform.gain.ndim == 0:
        return transform
    if value.rank is None or output.rank is None:
        return None
    return Affine.along(output.rank - value.rank, transform.gain, transform.shift)


def _takes(value: Value, transform: Affine, output: Value) -> bool:
    """Return True if a factor has each axis along which the transform varies, at its length."""
    if transform.gain.ndim == 0:
        return True
    if value.shape is None or output.rank is None:
        return False
    shape = (1,) * (output.rank - len(value.shape)) + value.shape
    return all(size in (1, dim) for size, dim in zip(transform.gain.shape, shape, strict=False))


def _lowered(transform: Affine, value: Value, output: Value) -> Affine:
    """Return the product's transform as one of a factor that takes it."""
    if transform.gain.ndim == 0 or value.rank is None or output.rank is None:
        return transform
    lead = output.rank - value.rank
    return Affine.of(transform.gain.reshape(transform.gain.shape[lead:]), 0.0)


def _rewrite_product(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    operands = split_operands(node)
    if operands is None:
        return Rewrite()
    data, index = operands
    source, k = node.inputs[data], aligned_constant(node, data, index)
    assert source is not None and not isinstance(k, Refusal)
    ratio = current(node.output).gain_only().after(current(source).gain_only().inverse())
    if ratio.agrees(IDENTITY):
        return Rewrite()
    factor = ratio if node.op == "Mul" else ratio.inverse()
    return Rewrite({(node, index): with_shape_of(factor(k), constant_shape(node, index))})


RULES = {
    "Mul": Rule(
        "a constant factor takes any scale; an offset goes on, divided by it; of two values one takes the scale, no "
        "offset",
        "a constant factor takes any scale but 0; an offset goes on, multiplied by it; of two values the scales "
        "multiply, no offset",
        _propagate_product,
        _rewrite_product,
    ),
    "Div": Rule("as Mul; a constant is the divisor", "as Mul", _propagate_product, _rewrite_product),
}
