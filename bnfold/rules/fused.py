"""Operators that onnxruntime's optimizer makes of several: a linear one and its activation, a sum and its norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.affine import Affine
from bnfold.rules import conv, labelled_product, matmul
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, not_constant, off_axis

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
"""Activations that positive scales pass."""


def _behind_activation(linear: Rule) -> Callable[[Node, RuleContext], Alternatives]:
    """The rule of a linear operator whose result goes through an activation before anything reads it."""

    def propagate(node: Node, context: RuleContext) -> Alternatives:
        after, kind = context.proposed(node.output), node.attr("activation", "")
        if node.op.endswith("FusedConv") and node.input(3) is not None:
            return Refusal("unknown-op", f"{node.label} adds another value, for which bnfold has no rule")
        if after is not None and kind and (kind not in HOMOGENEOUS or after.has_shift or not after.positive):
            what = "a transform" if kind not in HOMOGENEOUS else "an offset or a scale that is not positive"
            return Refusal("nonlinear", f"{what} does not pass the {kind} of {node.label}")
        return linear.propagate(node, context)

    return propagate


def _propagate_skip_norm(node: Node, context: RuleContext) -> Alternatives:
    """A sum and its LayerNormalization along the last axis, whose scale and bias take what varies along it."""
    if any(context.proposed(value) is not None for value in (*node.inputs, *node.outputs[1:])):
        return Refusal("nonlinear", f"{node.label} computes its statistics from its input")
    first, after = node.outputs[0], None if node.outputs[0] is None else context.proposed(node.outputs[0])
    if after is None or first is None:
        return parameter_refusal(node)
    if refusal := not_constant(node, 2, 3):
        return refusal
    shape = constant_shape(node, 2)
    if first.rank is None or len(shape) != 1 or (node.input(3) is not None and constant_shape(node, 3) != shape):
        return Refusal("unknown-shape", f"the rank of {node.label} is not known")
    return off_axis(after, node, first.rank - 1, shape[0]) or ABSORBED


def _rewrite_skip_norm(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    first, size = node.outputs[0], constant_shape(node, 2)[0]
    assert first is not None and first.rank is not None
    vectors = current(first).vectors(first.rank - 1, size)
    assert vectors is not None
    gain, shift = vectors
    rewrite = Rewrite({(node, 2): gain * constant(node, 2).astype(np.float64)})
    if node.input(3) is not None or shift.any():
        old = constant(node, 3).astype(np.float64) if node.input(3) is not None else np.zeros(size)
        rewrite.constants[node, 3] = gain * old + shift
    return rewrite


def _fused(linear: Rule, name: str) -> Rule:
    return Rule(
        f"as {name}; with Relu or LeakyRelu positive scales, no offset",
        f"as {name}",
        _behind_activation(linear),
        linear.rewrite,
    )


RULES = {
    "com.microsoft::FusedConv": _fused(conv.RULES["Conv"], "Conv"),
    "com.microsoft::FusedGemm": _fused(matmul.RULES["Gemm"], "Gemm"),
    "com.microsoft::FusedMatMul": Rule(
        "as MatMul, of one constant, also transposed",
        "as MatMul, of one constant, also transposed",
        labelled_product.propagate,
        labelled_product.rewrite,
    ),
    "com.microsoft::SkipLayerNormalization": Rule(
        "any transform along the last axis, into scale and bias", "never", _propagate_skip_norm, _rewrite_skip_norm
    ),
}
