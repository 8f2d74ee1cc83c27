"""Clip: its bounds move with the transform, and must each stay one number."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import (
    clip_bounds,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import pass_on
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    Transforms,
    not_constant,
)


def _propagate_clip(node: Node, context: RuleContext) -> Alternatives:
    """The bounds move with the transform: each must stay one number. Negative gains swap them."""
    bounds = _bounds(node)
    if isinstance(bounds, Refusal):
        return bounds
    low, high = bounds
    source = node.inputs[0]
    assert source is not None
    for value in (source, node.output):
        transform = context.proposed(value)
        if transform is None:
            continue
        total = transform.after(context.current(value))
        if not total.positive and (not (total.gain < 0).all() or low is None or high is None or low > high):
            return Refusal("nonlinear", f"scales that are not positive don't pass Clip {node.name!r}")
        if any(bound is not None and _moved_bound(total, bound) is None for bound in (low, high)):
            return Refusal("nonlinear", f"the bounds of Clip {node.name!r} would differ from channel to channel")
    return pass_on(node, context)


def _moved_bound(transform: Affine, bound: float) -> float | None:
    """Where the transform takes a bound; None if that differs from channel to channel."""
    places = np.unique(transform.gain * bound + transform.shift)
    return float(places[0]) if len(places) == 1 else None


def _bounds(node: Node) -> tuple[float | None, float | None] | Refusal:
    if node.opset >= 11 and (refusal := not_constant(node, 1, 2)):
        return refusal
    return clip_bounds(node) or Refusal("unknown-shape", f"a bound of Clip {node.name!r} is not one number")


def _rewrite_clip(node: Node, current: Transforms) -> Rewrite:
    transform = current(node.output)
    before = _bounds(node)
    assert not isinstance(before, Refusal)
    bounds = before if transform.positive else before[::-1]
    rewrite = Rewrite()
    for index, (old, bound) in enumerate(zip(before, bounds, strict=True), start=1):
        if bound is None:
            continue
        new = _moved_bound(transform, bound)
        assert new is not None
        if new == old:
            continue
        if node.opset < 11:
            rewrite.attributes[node, "min" if index == 1 else "max"] = new
        else:
            rewrite.constants[node, index] = np.asarray(new)
    return rewrite


RULES = {
    "Clip": Rule(
        "any transform that takes each bound to one number; the bounds move, negative scales swap them",
        "likewise",
        _propagate_clip,
        _rewrite_clip,
    ),
}
