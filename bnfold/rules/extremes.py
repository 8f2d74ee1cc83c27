"""Max and Min of values and constants: what all of them carry alike, with positive gains."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant_shape
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.operands import aligned_constants, stretched, with_shape_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Rewrite, Rule, RuleContext, Transforms


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """``max(a x + b, a y + b) = a max(x, y) + b`` for ``a > 0``; a constant is transformed like the values."""
    data = [value for value in node.inputs if value is not None and not node.graph.constants.is_constant(value)]
    proposed = [found for value in (node.output, *data) if (found := context.proposed(value)) is not None]
    if not proposed:
        return parameter_refusal(node)
    transform = proposed[0]
    if not transform.positive:
        return Refusal("nonlinear", f"a scale that is not positive does not pass {node.label}")
    if any(not other.agrees(transform) for other in proposed[1:]):
        return Refusal("consumers", f"the operands of {node.label} would need different transforms")
    if refusal := stretched(node, data, [transform]):
        return refusal
    held = aligned_constants(node, data)
    if isinstance(held, Refusal):
        return held
    return [[(value, transform) for value in (node.output, *data) if context.proposed(value) is None]]


def _rewrite(node: Node, current: Transforms) -> Rewrite:
    data = [value for value in node.inputs if value is not None and not node.graph.constants.is_constant(value)]
    held, transform = aligned_constants(node, data), current(node.output)
    assert not isinstance(held, Refusal)
    rewrite = Rewrite()
    for index, k in held.items():
        new = with_shape_of(transform(k), constant_shape(node, index))
        if not transform.is_identity and np.isfinite(new).any():  # an infinite bound stays what it is
            rewrite.constants[node, index] = new
    return rewrite


_ALIKE = "any transform with positive scales, the same for all values; constants are transformed too"

RULES = {"Max": Rule(_ALIKE, _ALIKE, _propagate, _rewrite), "Min": Rule(_ALIKE, _ALIKE, _propagate, _rewrite)}
