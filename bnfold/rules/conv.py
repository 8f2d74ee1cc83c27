"""Conv and ConvTranspose with constant weights: channels on axis 1. Padding limits what their input may carry."""

from __future__ import annotations

from math import prod

from bnfold.ir.graph import Node
from bnfold.ir.op_views import ConvView, constant, constant_shape
from bnfold.numerics.linear import fold_linear
from bnfold.rules.linear_common import Ends, absorb, new_weight
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Rewrite, Rule, RuleContext, Transforms, not_constant, weight


def _propagate_conv(node: Node, context: RuleContext) -> Alternatives:
    if refusal := not_constant(node, 1, 2):
        return refusal
    view = ConvView.of(node)
    if len(view.shape) < 3 or view.group < 1:
        return Refusal("unknown-shape", f"the weight of {node.label} has shape {list(view.shape)}")
    if not view.is_valid:
        return Refusal("unknown-shape", f"{node.label} has {view.group} groups, which don't divide its channels")
    if node.input(2) is not None and constant_shape(node, 2) != (view.outputs,):
        return Refusal("unknown-shape", f"the bias of {node.label} is not one number per channel")
    before = context.proposed(node.inputs[0])
    if before is not None and before.has_shift and (view.is_transposed or view.may_read_padding):
        return Refusal("padding", f"{node.label} pads its input with zeros")
    return absorb(node, context, _ends(view), view.output_axis)


def _ends(view: ConvView) -> Ends:
    return Ends(view.node.inputs[0], 1, view.inputs, 1, view.outputs)


def _rewrite_conv(node: Node, current: Transforms) -> Rewrite:
    view = ConvView.of(node)
    before, after = _ends(view).vectors(node, current)
    bias = constant(node, 2) if node.input(2) else None
    stored = (view.group, view.shape[0] // view.group, view.shape[1], prod(view.shape[2:]))
    new, offset = fold_linear(weight(node, 1, stored, inputs_first=view.is_transposed), bias, before, after)
    rewrite = new_weight(node, 1, new, before, after, view.output_axis)
    if bias is not None or offset.any():
        rewrite.constants[node, 2] = offset
    return rewrite


RULES = {
    "Conv": Rule(
        "any transform, whatever the pads, groups, strides and dilations",
        "any scale but 0; an offset only without padding",
        _propagate_conv,
        _rewrite_conv,
    ),
    "ConvTranspose": Rule(
        "any transform, whatever the pads, groups and output padding",
        "any scale but 0; an offset never",
        _propagate_conv,
        _rewrite_conv,
    ),
}
