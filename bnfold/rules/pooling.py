"""MaxPool, AveragePool and the global ones: means carry any transform, maxima need positive gains."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.ir.op_views import (
    pool_is_padded,
)
from bnfold.rules.identity import pass_on
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rule,
    RuleContext,
    proposed_around,
)

_ANY = "any transform per channel"


def _per_channel(node: Node, context: RuleContext) -> Refusal | None:
    """Why the transform is not one per channel on axis 1, the only axis that a pool leaves alone besides the batch."""
    if all(transform.gain.ndim <= 2 for transform in proposed_around(node, context)):
        return None
    return Refusal("channel-axis", f"the transform varies over the positions that {node.label} combines")


def _window_in_padding(node: Node) -> Refusal | None:
    """Return why a window may lie in the padding altogether, where a pool makes a number out of nothing.

    One with gaps may straddle an input that is smaller than they are.
    """
    dilations = node.attr("dilations", ())
    source = node.inputs[0]
    shape = None if source is None else source.shape
    if not pool_is_padded(node) or all(step == 1 for step in dilations):
        return None
    sizes = [None] * len(dilations) if shape is None else shape[2:]
    if all(isinstance(size, int) and size >= step for size, step in zip(sizes, dilations, strict=True)):
        return None
    return Refusal("padding", f"{node.label} has windows that may lie in the padding altogether")


def _maximum(node: Node, context: RuleContext) -> Alternatives:
    """``max(a x + b) = a max(x) + b`` for ``a >= 0``; padding is minus infinity and stays so."""
    if refusal := _per_channel(node, context) or _window_in_padding(node):
        return refusal
    if len(node.live_outputs) > 1:
        return Refusal("unknown-op", f"the indices of {node.label} are read")
    if any((transform.gain < 0).any() for transform in proposed_around(node, context)):
        return Refusal("nonlinear", f"a negative scale does not pass {node.label}")
    return pass_on(node, context)


def _average(node: Node, context: RuleContext) -> Alternatives:
    """Zeros that are counted as padding would have to be shifted too."""
    if refusal := _per_channel(node, context) or _window_in_padding(node):
        return refusal
    counted = node.attr("count_include_pad", 0) and (pool_is_padded(node) or node.attr("ceil_mode", 0))
    if counted and any(transform.has_shift for transform in proposed_around(node, context)):
        return Refusal("padding", f"{node.label} counts padding zeros")
    return pass_on(node, context)


def _global_average(node: Node, context: RuleContext) -> Alternatives:
    return _per_channel(node, context) or pass_on(node, context)


RULES = {
    "MaxPool": Rule("scales >= 0, any offset, any pads, if each window sees its input", "likewise", _maximum),
    "GlobalMaxPool": Rule("scales >= 0, any offset", "likewise", _maximum),
    "AveragePool": Rule(
        "any transform, if each window sees its input; no offset where padding is counted", "likewise", _average
    ),
    "GlobalAveragePool": Rule(_ANY, _ANY, _global_average),
}
