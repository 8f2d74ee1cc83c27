"""Mul and Div by a constant: the factor takes any gain, a shift goes on, scaled."""

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
    if operands is None or (node.op == "Div" and operands[0] == 1):
        return Refusal("nonlinear", f"{node.label} has two non-constant inputs")
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
    return Rewrite({(node, index): with_shape_of(factor(k), constant_shape(node, index))})


RULES = {
    "Mul": Rule(
        "a constant factor takes any scale; an offset goes on, divided by it",
        "a constant factor takes any scale but 0; an offset goes on, multiplied by it",
        _propagate_product,
        _rewrite_product,
    ),
    "Div": Rule("as Mul, by a constant divisor", "as Mul", _propagate_product, _rewrite_product),
}
