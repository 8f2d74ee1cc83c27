"""Resize and Upsample: interpolation carries any transform that does not vary along a resized axis."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.ir.op_views import (
    constant,
)
from bnfold.rules.identity import pass_on
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rule,
    RuleContext,
    proposed_around,
)


def _resize(node: Node, context: RuleContext) -> Alternatives:
    """The weights of interpolation sum to 1: it carries any transform that does not vary along a resized axis."""
    if node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return Refusal("padding", f"{node.label} extrapolates with a fixed value")
    source, target = node.inputs[0], node.output
    assert source is not None
    varying = {
        axis
        for transform in proposed_around(node, context)
        for axis, size in enumerate(transform.gain.shape)
        if size > 1
    }
    scales = _scales(node)
    for axis in varying:
        if scales is not None:
            if axis >= len(scales) or scales[axis] not in (1, None):
                return Refusal("channel-axis", f"{node.label} resizes the channels")
            if scales[axis] == 1:
                continue
        sizes = [None if shape is None else shape[axis] for shape in (source.shape, target.shape)]
        if not _by_sizes(node) or not isinstance(sizes[0], int) or sizes[0] != sizes[1]:
            return Refusal("unknown-shape", f"whether {node.label} resizes the channels is not known")
    return pass_on(node, context)


def _by_sizes(node: Node) -> bool:
    """Return True if the output's size alone says how each axis is resized: equal sizes are then no resizing."""
    return (
        node.op == "Resize"
        and node.input(3) is not None
        and node.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _scales(node: Node) -> list[float | None] | None:
    """The scale of each axis, None for one that is computed at run time; None altogether where sizes are given."""
    if "scales" in node.attrs:
        return [float(scale) for scale in node.attrs["scales"]]
    index = 1 if node.op == "Upsample" or node.opset < 11 else 2
    value, source = node.input(index), node.inputs[0]
    entries = node.graph.constants.entries(value)
    if value is not None and node.graph.constants.is_constant(value):
        found: list[float | None] = [float(scale) for scale in constant(node, index).reshape(-1)]
    elif entries is not None:
        found = [scale if isinstance(scale, float) else None for scale in entries.reshape(-1)]
    else:
        return None
    axes = node.attr("axes")
    if not axes or not found:
        return found or None
    assert source is not None
    if source.rank is None:
        return None
    scales: list[float | None] = [1.0] * source.rank
    for axis, scale in zip(axes, found, strict=True):
        scales[axis] = scale
    return scales


RULES = {
    "Resize": Rule("any transform that does not vary along a resized axis; no tf_crop_and_resize", "likewise", _resize),
    "Upsample": Rule("any transform that does not vary along a resized axis", "likewise", _resize),
}
