"""Operators that hand a value on as it is."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant, keeps_type
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rule, RuleContext


def parameter_refusal(node: Node) -> Refusal:
    """Return why a transform stops at an operator that reads its value as something else than data."""
    return Refusal("dynamic-weights", f"{node.label} reads the value as a parameter")


def pass_on(node: Node, context: RuleContext) -> Alternatives:
    """The first input and the first output carry the same transform."""
    source = node.inputs[0]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    if before is not None and after is not None:
        if before.agrees(after):
            return ABSORBED
        return Refusal("consumers", f"{node.label} would need two different transforms")
    known = before if before is not None else after
    if known is None:
        return parameter_refusal(node)
    return [[(node.output if after is None else source, known)]]


def is_training(node: Node) -> bool:
    """Return True for a Dropout that may drop: by its training_mode from opset 12 on, by ``is_test`` in 1 and 6."""
    training = node.input(2)
    active = (
        training is not None
        and node.opset >= 12
        and (not node.graph.constants.is_constant(training) or constant(node, 2).any())
    )
    return bool(active) or (node.opset < 7 and not node.attr("is_test", 0))


def _dropout(node: Node, context: RuleContext) -> Alternatives:
    """Dropout at inference."""
    if is_training(node):
        return Refusal("training-mode", f"Dropout {node.name!r} is in training mode")
    if any(value.consumers or value.is_output or value.captured for value in node.live_outputs[1:]):
        return Refusal("consumers", f"the mask of Dropout {node.name!r} is read")
    return pass_on(node, context)


def _shape_only(node: Node, context: RuleContext) -> Alternatives:
    """Shape and Size don't look at the values."""
    if any(context.proposed(value) is not None for value in node.live_outputs):
        return Refusal("unsupported-dtype", f"{node.label} makes integers")
    return ABSORBED


def _cast(node: Node, context: RuleContext) -> Alternatives:
    """A cast to the type that the value has is none. CastLike does not look at the values of its second input."""
    if context.proposed(node.inputs[0]) is None and context.proposed(node.output) is None:
        return ABSORBED
    if not keeps_type(node):
        return Refusal("unsupported-dtype", f"{node.label} changes the type")
    return pass_on(node, context)


_CAST = "passes if the type stays the same"
_SHAPE = Rule("never", "any transform: only the shape is read", _shape_only)

RULES = {
    "Shape": _SHAPE,
    "Size": _SHAPE,
    "Cast": Rule(_CAST, _CAST, _cast),
    "CastLike": Rule(_CAST, f"{_CAST}; any transform on the second input: only the type is read", _cast),
    "Identity": Rule("passes", "passes", pass_on),
    "Dropout": Rule("passes at inference", "passes at inference", _dropout),
}
