"""BatchNormalization in all its opsets: a transform itself, and if it is kept an absorber of others' transforms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.constant_folding import SMALL
from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine
from bnfold.numerics.batchnorm import ONNX_EPSILON, BatchNorm
from bnfold.numerics.rounding import is_float
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, not_constant, off_axis, singular


def in_training(node: Node) -> str | None:
    """Return why the node computes its statistics from the batch, or None if it is an inference BatchNormalization.

    Opset 14 and later: the attribute ``training_mode``. Opsets 7 and 9: more than one output. Opsets 1 and
    6: ``is_test`` is 0, its default.
    """
    if node.opset >= 14:
        return "training_mode is 1" if node.attr("training_mode", 0) else None
    if node.opset < 7 and not node.attr("is_test", 0):
        return "is_test is 0"
    extra = len(node.live_outputs) - 1
    return f"it has {extra} further outputs for its statistics" if extra else None


def statistics(node: Node) -> BatchNorm | Refusal:
    """The node's parameters in float64, or why it is not one fixed transform. Raises NotEvaluable."""
    if cause := in_training(node):
        return Refusal("training-mode", f"{node.name!r} is in training mode: {cause}")
    if len(node.live_outputs) > 1:
        return Refusal("training-mode", f"{node.name!r} has outputs for updated statistics")
    bn = stored(node)
    if isinstance(bn, Refusal):
        return bn
    if not all(np.isfinite(p).all() for p in (bn.scale, bn.bias, bn.mean, bn.var)):
        return Refusal("overflow", f"the parameters of {node.name!r} are not finite")
    if not (bn.var + bn.epsilon > 0).all():
        least = (bn.var + bn.epsilon).min()
        return Refusal("degenerate-variance", f"the least variance + epsilon of {node.name!r} is {least:.3g}")
    return bn


def stored(node: Node) -> BatchNorm | Refusal:
    """The four constants and epsilon as they are, sensible or not; or why there are none. Raises NotEvaluable."""
    if refusal := not_constant(node, 1, 2, 3, 4, code="dynamic-statistics"):
        return refusal
    if any(node.input(index) is None for index in range(5)):
        return Refusal("dynamic-statistics", f"{node.name!r} lacks an input")
    scale, bias, mean, var = (constant(node, index).astype(np.float64) for index in range(1, 5))
    if len({np.shape(scale), np.shape(bias), np.shape(mean), np.shape(var)}) != 1 or scale.ndim < 1:
        return Refusal("channel-axis", f"the parameters of {node.name!r} differ in shape")
    if scale.ndim > 1 and (node.opset >= 9 or node.attr("spatial", 1)):
        return Refusal("channel-axis", f"the parameters of {node.name!r} are not vectors")
    return BatchNorm(scale, bias, mean, var, node.attr("epsilon", ONNX_EPSILON))


def inference(node: Node) -> tuple[Value, BatchNorm] | Refusal:
    """What the node normalises, and by which parameters, if it is a transform of its input. Raises NotEvaluable."""
    known: tuple[Value, BatchNorm] | Refusal | None = node.graph.constants.parameters.get(node)
    if known is None:
        known = _inference(node)
        if isinstance(known, Refusal) or known[1].mean.size <= SMALL:
            node.graph.constants.parameters[node] = known
    return known


def _inference(node: Node) -> tuple[Value, BatchNorm] | Refusal:
    bn, source = statistics(node), node.inputs[0]
    if isinstance(bn, Refusal):
        return bn
    assert source is not None
    dtype = source.dtype
    if dtype is not None and not is_float(dtype):
        return Refusal("unsupported-dtype", f"the input of {node.name!r} has type {dtype}")
    shape, channels = source.shape, bn.mean.shape[0]
    if shape is not None and (len(shape) < 2 or (isinstance(shape[1], int) and shape[1] != channels)):
        return Refusal("channel-axis", f"{node.name!r} has {channels} channels, its input has shape {list(shape)}")
    return source, bn


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """A BatchNormalization that is kept takes any transform per channel into its scale and bias."""
    own = inference(node)
    if isinstance(own, Refusal):
        return own
    mean = own[1].mean
    for value in (node.inputs[0], node.output):
        transform = context.proposed(value)
        if transform is not None and (refusal := off_axis(transform, node, 1, len(mean))):
            return refusal
        if transform is not None and value is not node.output and (refusal := singular(transform, node)):
            return refusal
    if mean.ndim > 1:
        return Refusal("per-activation", f"{node.name!r} has statistics per position")
    return ABSORBED


def _rewrite(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """New scale and bias; mean and variance stay what they are."""
    bn, source = statistics(node), node.inputs[0]
    assert isinstance(bn, BatchNorm) and source is not None
    transform = current(node.output).after(bn.affine()).after(current(source).inverse())
    vectors = transform.vectors(1, bn.mean.size)
    assert vectors is not None
    gain, shift = vectors
    return Rewrite({(node, 1): gain * np.sqrt(bn.var + bn.epsilon), (node, 2): shift + bn.mean * gain})


RULES = {
    "BatchNormalization": Rule(
        "is removed; one that is kept takes any transform per channel into scale and bias",
        "one that is kept takes any transform but scale 0",
        _propagate,
        _rewrite,
    ),
}
