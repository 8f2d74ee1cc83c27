"""Pad: copies carry any transform, a constant padding must stay one number; new channels need not change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import pad_value, padding
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    not_constant,
    proposed_around,
)


def _propagate(node: Node, context: RuleContext) -> Alternatives:
    """The input carries what the output does, but for new channels; constant padding must still be one number."""
    source = node.inputs[0]
    before, after = context.proposed(source), context.proposed(node.output)
    assert source is not None
    if before is None and after is None:
        return parameter_refusal(node)
    ends = _new_channels(node)
    if ends is None and (refusal := _varies_where_padded(node, context)):
        return refusal
    behind = after if after is not None else _with_new_channels(before or IDENTITY, ends)
    if node.attr("mode", "constant") == "constant":
        value = _value(node)
        if isinstance(value, Refusal):
            return value
        if _fill(behind.after(context.current(node.output)), ends, value) is None:
            return Refusal("padding", f"the padding of Pad {node.name!r} would no longer be one number")
    if after is None:
        return [[(node.output, behind)]]
    inside = _without_new_channels(after, ends)
    if before is None:
        return [[(source, inside)]]
    return ABSORBED if inside.agrees(before) else Refusal("consumers", f"{node.label} would need two transforms")


def _new_channels(node: Node) -> tuple[int, int] | None:
    """Return how many channels a Pad makes before those that it reads and behind them; None if it pads otherwise."""
    pads = padding(node)
    if pads is None or node.attr("mode", "constant") != "constant":
        return None
    first, last = pads[1 : len(pads) // 2], pads[len(pads) // 2 + 1 :]
    others = [pads[0], *first[1:], pads[len(pads) // 2], *last[1:]]
    if not first or any(n != 0 for n in others) or first[0] is None or last[0] is None:
        return None
    ends = first[0], last[0]
    return ends if min(ends) >= 0 and any(ends) else None


def _varies_where_padded(node: Node, context: RuleContext) -> Refusal | None:
    """Return why a transform does not go with the entries."""
    transforms, pads = proposed_around(node, context), padding(node)
    if pads is None:
        if any(transform.gain.ndim for transform in transforms):
            return Refusal("unknown-shape", f"which axes Pad {node.name!r} pads is not known")
        return None
    rank = len(pads) // 2
    padded = {axis for axis in range(rank) if pads[axis] != 0 or pads[rank + axis] != 0}
    if any(size > 1 and axis in padded for transform in transforms for axis, size in enumerate(transform.gain.shape)):
        return Refusal("channel-axis", f"Pad {node.name!r} pads the channels")
    return None


def _varies(transform: Affine) -> bool:
    """Return True for a transform that is not the same for all channels."""
    return transform.gain.shape[1:2] not in ((), (1,))


def _with_new_channels(transform: Affine, ends: tuple[int, int] | None) -> Affine:
    """Return a transform of the input as one of the output, which leaves new channels as they are."""
    if ends is None or not _varies(transform):
        return transform
    widths = [ends if axis == 1 else (0, 0) for axis in range(transform.gain.ndim)]
    return Affine.of(np.pad(transform.gain, widths, constant_values=1.0), np.pad(transform.shift, widths))


def _without_new_channels(transform: Affine, ends: tuple[int, int] | None) -> Affine:
    """Return a transform of the output as one of the input."""
    if ends is None or not _varies(transform):
        return transform
    kept = slice(ends[0], transform.gain.shape[1] - ends[1])
    return Affine.of(transform.gain[:, kept], transform.shift[:, kept])


def _fill(transform: Affine, ends: tuple[int, int] | None, value: float) -> float | None:
    """Return what ``value`` becomes where it is padding: in new channels, or everywhere; None if not one number."""
    made = transform(np.full((1,) * max(transform.gain.ndim, 1), value))
    if ends is not None and _varies(transform):
        made = np.delete(made, slice(ends[0], made.shape[1] - ends[1]), axis=1)
    return float(made.reshape(-1)[0]) if np.unique(made).size == 1 else None


def _value(node: Node) -> float | Refusal:
    if node.opset >= 11 and (refusal := not_constant(node, 2)):
        return refusal
    value = pad_value(node)
    assert value is not None
    return value


def _rewrite(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    if node.attr("mode", "constant") != "constant":
        return Rewrite()
    value = _value(node)
    assert not isinstance(value, Refusal)
    new = _fill(current(node.output), _new_channels(node), value)
    assert new is not None
    if new == value:
        return Rewrite()
    if node.opset < 11:
        return Rewrite(attributes={(node, "value"): new})
    return Rewrite({(node, 2): np.asarray(new)})


RULES = {
    "Pad": Rule(
        "any transform that does not vary along a padded axis, or varies along channels of which some are new; "
        "constant padding must stay one number",
        "likewise; new channels stay as they are",
        _propagate,
        _rewrite,
    ),
}
