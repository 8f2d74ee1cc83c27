"""Powers, roots, reciprocals and absolute values: a scale comes out as that of it, no offset does.

``f(a x) = f(a) f(x)``. With sums and products they make up a standard deviation as exporters write it out:
``sqrt(mean((x - mean(x))^2))`` has the scale ``sqrt(a^2) = |a|``, and the offset is lost in the difference.
"""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import exponent_of
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.layout import Array
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rule, RuleContext


def _power(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    assert source is not None
    exponent = exponent_of(node)
    before, after = context.proposed(source), context.proposed(node.output)
    if any(transform is not None and transform.has_shift for transform in (before, after)):
        return Refusal("nonlinear", f"an offset does not pass {node.label}")
    if before is None and after is None:
        return parameter_refusal(node)
    if before is None:
        assert after is not None
        gain = None if exponent is None else _root(after.gain, exponent, node.op == "Abs")
        return _refused(node) if gain is None else [[(source, Affine.of(gain, 0.0))]]
    gain = None if exponent is None else _raised(before.gain, exponent, node.op == "Abs")
    if gain is None:
        return _refused(node)
    carried = Affine.of(gain, 0.0)
    if after is None:
        return [[(node.output, carried)]]
    return ABSORBED if carried.agrees(after) else Refusal("consumers", f"{node.label} would need two transforms")


def _refused(node: Node) -> Refusal:
    return Refusal("nonlinear", f"the sign of the scale, or its size, does not pass {node.label}")


def _raised(gain: Array, exponent: float, absolute: bool) -> Array | None:
    if absolute:
        return np.abs(gain)
    if (exponent != round(exponent) and (gain < 0).any()) or (exponent <= 0 and (gain == 0).any()):
        return None
    return np.power(gain, exponent)


def _root(gain: Array, exponent: float, absolute: bool) -> Array | None:
    """Return a scale of the input that gives the output ``gain``, which must not be zero."""
    odd = exponent % 2 == 1 and not absolute
    if exponent == 0 or (gain == 0).any() or (not odd and (gain < 0).any()):
        return None
    return np.sign(gain) * np.power(np.abs(gain), 1.0 / exponent)


RULES = {
    "Abs": Rule("positive scales, no offset", "any scale, without its sign; no offset", _power),
    "Pow": Rule(
        "scales that have such a root, no offset; a constant exponent, one number",
        "scales that have such a power, no offset",
        _power,
    ),
    "Reciprocal": Rule("any scale but 0, inverted; no offset", "any scale but 0, inverted; no offset", _power),
    "Sqrt": Rule("positive scales, squared; no offset", "scales >= 0, of which the root is taken; no offset", _power),
}
