"""Conv and ConvTranspose with constant weights: channels on axis 1. Padding limits what their input may carry."""

from __future__ import annotations

from math import prod

from bnfold.ir.graph import Node
from bnfold.numerics.linear import fold_linear
from bnfold.rules.linear_common import Ends, Transforms, absorb, new_weight
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Rewrite, Rule, RuleContext, constant, constant_shape, not_constant, weight


def _propagate_conv(node: Node, context: RuleContext) -> Alternatives:
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape, group = constant_shape(node, 1), node.attr("group", 1)
    if len(shape) < 3 or group < 1:
        return Refusal("unknown-shape", f"the weight of {node.op} {node.name!r} has shape {list(shape)}")
    transposed = node.op == "ConvTranspose"
    outputs = shape[1] * group if transposed else shape[0]
    inputs = shape[0] if transposed else shape[1] * group
    if shape[0] % group or 0 in shape:
        return Refusal("unknown-shape", f"{node.op} {node.name!r} has {group} groups, which don't divide its channels")
    if node.input(2) is not None and constant_shape(node, 2) != (outputs,):
        return Refusal("unknown-shape", f"the bias of {node.op} {node.name!r} is not one number per channel")
    before = context.proposed(node.inputs[0])
    if before is not None and before.has_shift and (transposed or _pads(node)):
        return Refusal("padding", f"{node.op} {node.name!r} sees zeros beyond the border")
    return absorb(node, context, Ends(node.inputs[0], 1, inputs, 1, outputs), _conv_axis(node))


def _conv_axis(node: Node) -> int | None:
    """The axis of the weight that counts the output channels, if one does so alone."""
    if node.op == "Conv":
        return 0
    return 1 if node.attr("group", 1) == 1 else None


def _pads(node: Node) -> bool:
    """True unless the operator provably reads nothing beyond its input."""
    mode = node.attr("auto_pad", "NOTSET") or "NOTSET"  # as onnxruntime reads an empty text
    if mode == "VALID":
        return False
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return mode != "NOTSET" or any(node.attr("pads", ()))
    shape = constant_shape(node, 1)
    ones = [1] * (len(shape) - 2)
    strides, dilations = node.attr("strides", ones), node.attr("dilations", ones)
    assert node.inputs[0] is not None
    source = node.inputs[0].shape
    for axis, (kernel, stride, dilation) in enumerate(zip(shape[2:], strides, dilations, strict=True), start=2):
        size = source[axis] if source and len(source) == len(shape) else None
        reach = dilation * (kernel - 1) + 1
        if reach > 1 and not isinstance(size, int):
            return True
        if isinstance(size, int) and (-(-size // stride) - 1) * stride + reach > size:
            return True
    return False


def _rewrite_conv(node: Node, current: Transforms) -> Rewrite:
    shape, group, transposed = constant_shape(node, 1), node.attr("group", 1), node.op == "ConvTranspose"
    inputs, outputs = (shape[0], shape[1] * group) if transposed else (shape[1] * group, shape[0])
    before, after = Ends(node.inputs[0], 1, inputs, 1, outputs).vectors(node, current)
    bias = constant(node, 2) if node.input(2) else None
    stored = (group, shape[0] // group, shape[1], prod(shape[2:]))
    new, offset = fold_linear(weight(node, 1, stored, inputs_first=transposed), bias, before, after)
    rewrite = new_weight(node, 1, new, before, after, _conv_axis(node))
    if bias is not None or offset.any():
        rewrite.constants[node, 2] = offset
    return rewrite


RULES = {
    "Conv": Rule(
        "any map, whatever the pads, groups, strides and dilations",
        "any gain but 0; a shift only without padding",
        _propagate_conv,
        _rewrite_conv,
    ),
    "ConvTranspose": Rule(
        "any map, whatever the pads, groups and output padding",
        "any gain but 0; a shift never",
        _propagate_conv,
        _rewrite_conv,
    ),
}
