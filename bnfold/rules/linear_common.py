"""What linear operators with constant weights share: they absorb any transform of their output, and invertible ones
of their input. The algebra is in :mod:`bnfold.numerics.linear`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant_shape
from bnfold.numerics.linear import Scaled
from bnfold.rules import quantized
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, RuleContext, Transforms, off_axis, singular

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """Where the channels of a linear operator lie: axis and number, of its input and of its output."""

    source: Value | None
    axis_in: int
    size_in: int
    axis_out: int
    size_out: int

    def vectors(self, node: Node, current: Transforms) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Gains and shifts of input and output as the plan decided them."""
        assert self.source is not None
        before = current(self.source).vectors(self.axis_in, self.size_in)
        after = current(node.output).vectors(self.axis_out, self.size_out)
        assert before is not None, "a transform that the plan allowed does not lie on the channel axis"
        assert after is not None, "a transform that the plan allowed does not lie on the channel axis"
        return before, after


def absorb(node: Node, context: RuleContext, ends: Ends, weight_axis: int | None, index: int = 1) -> Alternatives:
    """Maps per channel on either side are absorbed; of the input's, only those that can be undone."""
    after, before = context.proposed(node.output), context.proposed(ends.source)
    if after is not None:
        if refusal := off_axis(after, node, ends.axis_out, ends.size_out):
            return refusal
        if not after.gain_only().is_identity and (refusal := quantized.refusal(node, index, weight_axis)):
            return refusal
    if before is not None:
        if refusal := off_axis(before, node, ends.axis_in, ends.size_in) or singular(before, node):
            return refusal
        if not before.gain_only().is_identity and (refusal := quantized.refusal(node, index, None)):
            return refusal
    return ABSORBED


def new_weight(
    node: Node,
    index: int,
    new: Scaled,
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    weight_axis: int | None,
) -> Rewrite:
    """The new weight, unless no gain changes it; integers get new scales instead."""
    if (before[0] == 1).all() and (after[0] == 1).all():
        return Rewrite()
    if quantized.source_of(node, index) is None:
        return Rewrite({(node, index): replace(new, shape=constant_shape(node, index))})
    assert weight_axis is not None
    return quantized.rescaled(node, index, weight_axis, after[0])
