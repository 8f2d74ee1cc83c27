"""Relu, LeakyRelu and PRelu: homogeneous, so gains pass where they are positive."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import (
    constant_shape,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal, pass_on
from bnfold.rules.layout import Array
from bnfold.rules.operands import aligned_constant, with_shape_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    Transforms,
    not_constant,
)


def _positive_gains(node: Node, context: RuleContext) -> Alternatives:
    """``f(a x) = a f(x)`` for ``a > 0``: Relu, LeakyRelu."""
    for value in (node.inputs[0], node.output):
        transform = context.proposed(value)
        if transform is not None and (transform.has_shift or not transform.positive):
            what = "an offset" if transform.has_shift else "a scale that is not positive"
            return Refusal("nonlinear", f"{what} does not pass {node.label}")
    return pass_on(node, context)


def _propagate_prelu(node: Node, context: RuleContext) -> Alternatives:
    """Positive gains pass. A negative one swaps the halves: gain ``a`` in, ``a / s`` out, and the slope ``1 / s``."""
    slope = _slope(node, context.current)
    if isinstance(slope, Refusal):
        return slope
    source = node.inputs[0]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    for transform in (before, after):
        if transform is not None and (transform.has_shift or not transform.invertible):
            return Refusal("nonlinear", f"an offset or a scale of zero does not pass PRelu {node.name!r}")
    if before is not None:
        gain = _full(before.gain, slope.ndim)
        if ((gain < 0) & (slope == 0)).any():
            return Refusal("nonlinear", f"a negative scale does not pass PRelu {node.name!r}, whose slope is 0 there")
        with np.errstate(divide="ignore", invalid="ignore"):
            carried = Affine.of(np.where(gain > 0, gain, gain / slope), 0.0)
        if after is None:
            return [[(node.output, carried)]]
        return ABSORBED if carried.agrees(after) else Refusal("consumers", f"{node.label} would need two transforms")
    if after is None:
        return parameter_refusal(node)
    gain = _full(after.gain, slope.ndim)
    if ((gain < 0) & (slope <= 0)).any():
        return Refusal("nonlinear", f"a negative scale does not pass PRelu {node.name!r}, whose slope is not positive")
    return [[(source, Affine.of(np.where(gain > 0, gain, gain * slope), 0.0))]]


def _slope(node: Node, current: Transforms) -> Array | Refusal:
    """The slope as it stands after the folds so far, aligned with the input."""
    if refusal := not_constant(node, 1):
        return refusal
    aligned = aligned_constant(node, 0, 1)
    if isinstance(aligned, Refusal):
        return aligned
    source = node.inputs[0]
    assert source is not None
    gain = _full(current(source).gain, aligned.ndim)
    with np.errstate(divide="ignore"):
        return np.where(gain > 0, aligned, 1.0 / aligned) if (gain < 0).any() else aligned


def _rewrite_prelu(node: Node, current: Transforms) -> Rewrite:
    slope = _slope(node, current)
    assert not isinstance(slope, Refusal)
    return Rewrite({(node, 1): with_shape_of(slope, constant_shape(node, 1))})


def _full(array: Array, rank: int) -> Array:
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


RULES = {
    "Relu": Rule("positive scales, no offset", "positive scales, no offset", _positive_gains),
    "LeakyRelu": Rule("positive scales, no offset", "positive scales, no offset", _positive_gains),
    "PRelu": Rule(
        "scales without offset; a negative one inverts the slope, which must be positive",
        "scales without offset; a negative one inverts the slope, which must not be 0",
        _propagate_prelu,
        _rewrite_prelu,
    ),
}
