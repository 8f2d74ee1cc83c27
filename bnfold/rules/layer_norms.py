"""Normalizations by the statistics of their input: of layers, groups, instances. Scale and bias take what lies behind.

What comes in they normalise away, but not exactly: epsilon is added to the variance as it is. An offset alone that is
the same for all that is normalised together leaves no trace, unless the mean is not subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, Transforms, not_constant, off_axis

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Parameters:
    """Where scale and bias lie: one number for each entry of the axes of ``shape``, which begin with ``axis``.

    ``repeats``: of the first of them, each number is that of so many channels in a row.
    """

    axis: int
    shape: tuple[int, ...]
    repeats: int = 1

    def of(self, transform: Affine) -> tuple[Array, Array] | None:
        """Return gain and shift of a transform in this shape; None if it varies otherwise."""
        sizes = transform.gain.shape
        channels = (self.shape[0] * self.repeats, *self.shape[1:])
        behind = (*sizes, *(1 for _ in range(self.axis + len(channels) - len(sizes))))[self.axis :]
        if len(behind) != len(channels) or any(size != 1 for size in sizes[: self.axis]):
            return None
        if any(size not in (1, count) for size, count in zip(behind, channels, strict=True)):
            return None
        gain, shift = (
            np.broadcast_to(array.reshape(behind), channels).reshape(self.shape[0], self.repeats, *self.shape[1:])
            for array in (transform.gain, transform.shift)
        )
        if any((array != array[:, :1]).any() for array in (gain, shift)):
            return None
        return gain[:, 0], shift[:, 0]


def _parameters(node: Node) -> _Parameters | Refusal:
    """Where the parameters lie, all of which are constant. Raises NotEvaluable."""
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape, source = constant_shape(node, 1), node.inputs[0]
    known = None if source is None else source.shape
    if known is None or 0 in shape or (node.input(2) is not None and constant_shape(node, 2) != shape):
        return Refusal("unknown-shape", f"the rank of what {node.label} reads, or the shape of its scale, is not known")
    if node.op in ("LayerNormalization", "RMSNormalization"):
        axis = node.attr("axis", -1) % len(known)
        if len(shape) != len(known) - axis:
            return Refusal("unknown-shape", f"the scale of {node.label} has shape {list(shape)}")
        return _Parameters(axis, shape)
    if len(shape) != 1:
        return Refusal("unknown-shape", f"the scale of {node.label} has shape {list(shape)}")
    if node.op == "InstanceNormalization":
        return _Parameters(1, shape)
    channels = known[1] if len(known) > 1 else None
    if not isinstance(channels, int) or channels % shape[0]:
        return Refusal("unknown-shape", f"{node.label} has a scale of {shape[0]} entries for {channels} channels")
    return _Parameters(1, shape, channels // shape[0])


def _leaves_no_trace(node: Node, before: Affine) -> bool:
    """Return True for an offset that is subtracted with the mean: the same for all that is normalised together."""
    source = node.inputs[0]
    if not before.gain_only().is_identity or source is None or source.rank is None:
        return False
    if node.op == "InstanceNormalization":
        return before.shift.ndim <= 2
    return node.op == "LayerNormalization" and before.shift.ndim <= int(node.attr("axis", -1) % source.rank)


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """They end in a scale and a bias; what comes in changes what they are computed from."""
    before, after = context.proposed(node.inputs[0]), context.proposed(node.output)
    if node.outputs[0] is None or len(node.live_outputs) > 1:
        return Refusal("nonlinear", f"the statistics that {node.label} computes are read")
    if any(context.proposed(node.input(index)) is not None for index in (1, 2)):
        return parameter_refusal(node)
    if before is not None and not _leaves_no_trace(node, before):
        return Refusal("nonlinear", f"{node.label} computes its statistics from its input")
    if before is None and after is None:
        return parameter_refusal(node)
    own = _parameters(node)
    if isinstance(own, Refusal) or after is None:
        return own if isinstance(own, Refusal) else ABSORBED
    if own.of(after) is None:
        if len(own.shape) == 1 and own.repeats == 1 and (refusal := off_axis(after, node, own.axis, own.shape[0])):
            return refusal
        return Refusal("channel-axis", f"the transform varies otherwise than the scale of {node.label}")
    if node.op == "RMSNormalization" and after.has_shift:
        return Refusal("no-bias", f"{node.label} has no bias")
    return ABSORBED


def _rewrite(node: Node, current: Transforms) -> Rewrite:
    transform = current(node.output)
    if transform.is_identity:
        return Rewrite()
    own = _parameters(node)
    assert isinstance(own, _Parameters)
    vectors = own.of(transform)
    assert vectors is not None
    gain, shift = vectors
    rewrite = Rewrite({(node, 1): gain * constant(node, 1).astype(np.float64)})
    if node.input(2) is not None:
        rewrite.constants[node, 2] = gain * constant(node, 2).astype(np.float64) + shift
    elif shift.any():
        rewrite.constants[node, 2] = np.array(shift)
    return rewrite


RULES = {
    "GroupNormalization": Rule(
        "any transform per channel, into scale and bias; before opset 21 the same for all channels of a group",
        "never",
        _propagate,
        _rewrite,
    ),
    "InstanceNormalization": Rule(
        "any transform per channel, into scale and bias",
        "no scale; an offset per channel is lost",
        _propagate,
        _rewrite,
    ),
    "LayerNormalization": Rule(
        "any transform along the axes that it normalises, into scale and bias",
        "no scale; an offset that is the same for all that is normalised together is lost",
        _propagate,
        _rewrite,
    ),
    "RMSNormalization": Rule(
        "any scale along the axes that it normalises; an offset as behind a MatMul",
        "never",
        _propagate,
        _rewrite,
    ),
}
