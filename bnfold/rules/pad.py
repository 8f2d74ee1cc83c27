"""Pad: copies carry any transform, a constant padding must stay one number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    pad_value,
    sizes,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import pass_on
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    not_constant,
    proposed_around,
)


def _propagate_pad(node: Node, context: RuleContext) -> Alternatives:
    """Copies of edge values carry any transform; constant padding must still be one number afterwards."""
    pads = sizes(node, "pads", 1) or sizes(node, "paddings", 1)
    transforms = proposed_around(node, context)
    source = node.inputs[0]
    assert source is not None
    if pads is None or node.input(3) is not None:
        if any(transform.gain.ndim for transform in transforms):
            return Refusal("unknown-shape", f"which axes Pad {node.name!r} pads is not known")
    else:
        rank = len(pads) // 2
        padded = {axis for axis in range(rank) if pads[axis] != 0 or pads[rank + axis] != 0}
        if any(
            size > 1 and axis in padded for transform in transforms for axis, size in enumerate(transform.gain.shape)
        ):
            return Refusal("channel-axis", f"Pad {node.name!r} pads the channels")
    if node.attr("mode", "constant") == "constant":
        value = _value(node)
        if isinstance(value, Refusal):
            return value
        total = [known.after(context.current(source)) for known in transforms[:1]]
        if total and np.unique(total[0](np.full((1,) * max(total[0].gain.ndim, 1), value))).size > 1:
            return Refusal("padding", f"the padding of Pad {node.name!r} would no longer be one number")
    return pass_on(node, context)


def _value(node: Node) -> float | Refusal:
    if node.opset >= 11 and (refusal := not_constant(node, 2)):
        return refusal
    value = pad_value(node)
    assert value is not None
    return value


def _rewrite_pad(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    if node.attr("mode", "constant") != "constant":
        return Rewrite()
    transform, value = current(node.output), _value(node)
    assert not isinstance(value, Refusal)
    new = float(transform(np.full((1,) * max(transform.gain.ndim, 1), value)).reshape(-1)[0])
    if new == value:
        return Rewrite()
    if node.opset < 11:
        return Rewrite(attributes={(node, "value"): new})
    return Rewrite({(node, 2): np.asarray(new)})


RULES = {
    "Pad": Rule(
        "any transform that does not vary along a padded axis; constant padding must stay one number",
        "likewise",
        _propagate_pad,
        _rewrite_pad,
    ),
}
