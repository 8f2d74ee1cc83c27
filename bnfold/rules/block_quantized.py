"""Onnxruntime's MatMulNBits: integers in blocks along the inputs, each with a scale; a gain goes into the scales."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.rounding import smallest_normal
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    NotRepresentable,
    Rewrite,
    Rule,
    RuleContext,
    Transforms,
    not_constant,
    off_axis,
)

SCALES, BIAS = 2, 5
"""The inputs that a transform changes: A, B, scales, zero points, an order of the inputs, a bias."""


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """``y = A ((q - zero) scale)' + bias``: a gain per output goes into its scales, an offset into the bias."""
    if any(context.proposed(value) is not None for value in node.inputs):
        where = f"{node.label}, whose weights are integers with scales that can't take a scale on this axis"
        return Refusal("unsupported-dtype", where)
    after, outputs = context.proposed(node.output), int(node.attr("N", 0))
    if after is None:
        return parameter_refusal(node)
    if refusal := not_constant(node, SCALES, BIAS):
        return refusal
    if not outputs or int(np.prod(constant_shape(node, SCALES))) % outputs:
        return Refusal("unknown-shape", f"{node.label} has scales of shape {list(constant_shape(node, SCALES))}")
    if node.input(BIAS) is not None and constant_shape(node, BIAS) != (outputs,):
        return Refusal("unknown-shape", f"the bias of {node.label} is not one number per channel")
    if node.output.rank is None:
        return Refusal("unknown-shape", f"the rank of {node.output.name!r} is not known")
    if refusal := off_axis(after, node, node.output.rank - 1, outputs):
        return refusal
    if after.has_shift and node.input(BIAS) is None:
        return Refusal("no-bias", f"{node.label} has no bias")
    return ABSORBED


def _rewrite(node: Node, current: Transforms) -> Rewrite:
    rank, outputs, held = node.output.rank, int(node.attr("N")), node.input(SCALES)
    assert rank is not None and held is not None and held.dtype is not None
    vectors = current(node.output).vectors(rank - 1, outputs)
    assert vectors is not None
    gain, shift = vectors
    shape = constant_shape(node, SCALES)
    scales = constant(node, SCALES).astype(np.float64).reshape(outputs, -1) * gain[:, None]
    least = np.abs(scales[scales != 0]).min(initial=np.inf)
    if least < smallest_normal(held.dtype):
        raise NotRepresentable(
            Refusal("overflow", f"the {held.dtype} scales of {node.name!r} would lose bits: {least:.3g}")
        )
    rewrite = Rewrite({(node, SCALES): scales.reshape(shape)} if (gain != 1).any() else {})
    if node.input(BIAS) is not None:
        rewrite.constants[node, BIAS] = gain * constant(node, BIAS).astype(np.float64) + shift
    return rewrite


RULES = {
    "com.microsoft::MatMulNBits": Rule(
        "any scale, into the scales of the blocks; an offset needs a bias, or a constant Add behind",
        "never",
        _propagate,
        _rewrite,
    )
}
