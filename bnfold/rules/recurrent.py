"""LSTM, GRU and RNN: their input weights are linear, what follows is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.affine import Affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, not_constant, off_axis, singular

FEATURES = 2
"""The axis of the features in X, whichever comes first, time or batch."""


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """A transform of X's features goes into W (directions, gates * hidden, input) and the first half of B."""
    others = [*node.inputs[1:], *node.live_outputs]
    if any(context.proposed(value) is not None for value in others):
        return Refusal("nonlinear", f"only the first input of {node.label} carries a transform")
    if refusal := not_constant(node, 1, 3):
        return refusal
    before = context.proposed(node.inputs[0])
    assert before is not None
    return off_axis(before, node, FEATURES, constant_shape(node, 1)[2]) or singular(before, node) or ABSORBED


def _rewrite(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    assert node.inputs[0] is not None
    weight = constant(node, 1).astype(np.float64)
    vectors = current(node.inputs[0]).vectors(FEATURES, weight.shape[2])
    assert vectors is not None
    gain, shift = vectors
    rewrite = Rewrite({(node, 1): weight / gain})
    if shift.any():
        directions, rows, _ = weight.shape
        old = constant(node, 3) if node.input(3) is not None else np.zeros((directions, 2 * rows))
        bias = old.astype(np.float64)
        bias[:, :rows] -= weight @ (shift / gain)
        rewrite.constants[node, 3] = bias
    return rewrite


def _propagate_torch(node: Node, context: RuleContext) -> Alternatives:
    """Torch's own: a weight and a bias of the first layer for each direction, behind the input; features come last."""
    count = node.attr("directions")
    weights = range(1, count + 1)
    source = node.inputs[0]
    assert source is not None
    if any(context.proposed(value) is not None for value in (*node.inputs[1:], *node.live_outputs)):
        return Refusal("nonlinear", f"only the first input of {node.label} carries a transform")
    if refusal := not_constant(node, *weights, *(index + count for index in weights if node.attr("biased"))):
        return refusal
    before = context.proposed(source)
    assert before is not None
    if source.rank is None:
        return Refusal("unknown-shape", f"the rank of {source.name!r} is not known")
    if before.has_shift and not node.attr("biased"):
        return Refusal("nonlinear", f"{node.label} has no bias to take an offset")
    refusal = off_axis(before, node, source.rank - 1, constant_shape(node, 1)[1])
    return refusal or singular(before, node) or ABSORBED


def _rewrite_torch(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    source, count, rewrite = node.inputs[0], node.attr("directions"), Rewrite()
    assert source is not None and source.rank is not None
    for index in range(1, count + 1):
        weight = constant(node, index).astype(np.float64)
        vectors = current(source).vectors(source.rank - 1, weight.shape[1])
        assert vectors is not None
        gain, shift = vectors
        rewrite.constants[node, index] = weight / gain
        if shift.any():
            bias = constant(node, index + count).astype(np.float64)
            rewrite.constants[node, index + count] = bias - weight @ (shift / gain)
    return rewrite


_NEVER = "never"
_INTO = "into the input weights and their bias, any scale but 0"

RULES = {
    **{op: Rule(_NEVER, _INTO, _propagate, _rewrite) for op in ("LSTM", "GRU", "RNN")},
    "Recurrent": Rule(
        _NEVER, "torch's own LSTM, GRU and RNN: as theirs; an offset only with biases", _propagate_torch, _rewrite_torch
    ),
}
