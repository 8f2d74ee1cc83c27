"""Operators that combine positions: means carry any map, maxima need positive gains, borders set conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import pass_on
from bnfold.rules.layout import Unmovable, pass_moved
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Rewrite, Rule, RuleContext, constant, integers, not_constant

Array = NDArray[np.float64]


def _maps(node: Node, context: RuleContext) -> list[Affine]:
    return [map_ for map_ in (context.proposed(node.inputs[0]), context.proposed(node.output)) if map_ is not None]


def _per_channel(node: Node, context: RuleContext) -> Refusal | None:
    """Why the map is not one per channel on axis 1, the only axis that a pool leaves alone besides the batch."""
    if all(map_.gain.ndim <= 2 for map_ in _maps(node, context)):
        return None
    return Refusal("channel-axis", f"the map varies over the positions that {node.op} {node.name!r} combines")


def _blind(node: Node) -> Refusal | None:
    """Why a window may lie beyond the border altogether, where a pool makes a number out of nothing.

    One with gaps may straddle an input that is smaller than they are.
    """
    dilations = node.attr("dilations", ())
    source = node.inputs[0]
    shape = None if source is None else source.shape
    if not _padded(node) or all(step == 1 for step in dilations):
        return None
    sizes = [None] * len(dilations) if shape is None else shape[2:]
    if all(isinstance(size, int) and size >= step for size, step in zip(sizes, dilations, strict=True)):
        return None
    return Refusal("padding", f"{node.op} {node.name!r} has windows that may lie beyond the border")


def _padded(node: Node) -> bool:
    return any(node.attr("pads", ())) or node.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _maximum(node: Node, context: RuleContext) -> Alternatives:
    """``max(a x + b) = a max(x) + b`` for ``a >= 0``; borders are minus infinity and stay so."""
    if refusal := _per_channel(node, context) or _blind(node):
        return refusal
    if len(node.live_outputs) > 1:
        return Refusal("unknown-op", f"the indices of {node.op} {node.name!r} are read")
    if any((map_.gain < 0).any() for map_ in _maps(node, context)):
        return Refusal("nonlinear", f"a negative gain does not pass {node.op} {node.name!r}")
    return pass_on(node, context)


def _average(node: Node, context: RuleContext) -> Alternatives:
    """Zeros that are counted at the border would have to be shifted too."""
    if refusal := _per_channel(node, context) or _blind(node):
        return refusal
    counted = node.attr("count_include_pad", 0) and (_padded(node) or node.attr("ceil_mode", 0))
    if counted and any(map_.has_shift for map_ in _maps(node, context)):
        return Refusal("padding", f"{node.op} {node.name!r} averages zeros beyond the border")
    return pass_on(node, context)


def _global_average(node: Node, context: RuleContext) -> Alternatives:
    return _per_channel(node, context) or pass_on(node, context)


def _reduce(node: Node, context: RuleContext) -> Alternatives:
    """Over axes along which the map does not vary: means pass any map, sums multiply the shift, maxima need a >= 0."""
    source = node.inputs[0]
    assert source is not None
    rank = source.rank
    axes = integers(node, "axes", 1)
    if rank is None or (axes is None and node.input(1) is not None):
        return Refusal("unknown-shape", f"the axes of {node.op} {node.name!r} are not known")
    if not axes:
        axes = [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))
    reduced = sorted({axis % rank for axis in axes})
    if node.op in ("ReduceMax", "ReduceMin") and any((map_.gain < 0).any() for map_ in _maps(node, context)):
        return Refusal("nonlinear", f"a negative gain does not pass {node.op} {node.name!r}")
    factor = _count(source, reduced) if node.op == "ReduceSum" else 1
    if factor is None:
        if any(map_.has_shift for map_ in _maps(node, context)):
            return Refusal("unknown-shape", f"how many entries {node.op} {node.name!r} adds is not known")
        factor = 1
    forward, backward = _reducing(rank, reduced, bool(node.attr("keepdims", 1)), factor)
    return pass_moved(node, context, forward, backward, plain=False)


def _count(source: Value, reduced: Sequence[int]) -> int | None:
    dims = [None] if source.shape is None else [source.shape[axis] for axis in reduced]
    known = [dim for dim in dims if isinstance(dim, int)]
    return prod(known) if len(known) == len(dims) else None


def _reducing(
    rank: int, reduced: Sequence[int], keep: bool, factor: int
) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array]]:
    """The moves of a reduction; ``fill`` 0 marks the array of shifts, which a sum multiplies."""

    def forward(array: Array, fill: float) -> Array:
        if any(array.shape[axis] != 1 for axis in reduced):
            raise Unmovable("the map varies along an axis that it reduces")
        array = array * factor if fill == 0 else array
        return array if keep else array.reshape([n for axis, n in enumerate(array.shape) if axis not in reduced])

    def backward(array: Array, fill: float) -> Array:
        array = array / factor if fill == 0 else array
        if keep:
            if any(array.shape[axis] != 1 for axis in reduced):
                raise Unmovable("the map varies along an axis that it reduces")
            return array
        sizes = iter(array.shape)
        return array.reshape([1 if axis in reduced else next(sizes) for axis in range(rank)])

    return forward, backward


def _resize(node: Node, context: RuleContext) -> Alternatives:
    """Interpolation takes weights that sum to 1, so it carries any map that does not vary along a resized axis."""
    if node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return Refusal("padding", f"{node.op} {node.name!r} extrapolates with a fixed value")
    source, target = node.inputs[0], node.output
    assert source is not None
    varying = {axis for map_ in _maps(node, context) for axis, size in enumerate(map_.gain.shape) if size > 1}
    scales = _scales(node)
    for axis in varying:
        if scales is not None:
            if axis >= len(scales) or scales[axis] != 1:
                return Refusal("channel-axis", f"{node.op} {node.name!r} resizes the channels")
            continue
        sizes = [None if shape is None else shape[axis] for shape in (source.shape, target.shape)]
        if not _by_sizes(node) or not isinstance(sizes[0], int) or sizes[0] != sizes[1]:
            return Refusal("unknown-shape", f"whether {node.op} {node.name!r} resizes the channels is not known")
    return pass_on(node, context)


def _by_sizes(node: Node) -> bool:
    """True if the output's size alone says how each axis is resized: equal sizes are then no resizing."""
    return (
        node.op == "Resize"
        and node.input(3) is not None
        and node.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    )


def _scales(node: Node) -> list[float] | None:
    """The scale of each axis where constants give it; None where they don't, or give sizes."""
    if "scales" in node.attrs:
        return [float(scale) for scale in node.attrs["scales"]]
    index = 1 if node.op == "Upsample" or node.opset < 11 else 2
    value, source = node.input(index), node.inputs[0]
    if value is None or not node.graph.constants.is_constant(value):
        return None
    found = [float(scale) for scale in constant(node, index).reshape(-1)]
    axes = node.attr("axes")
    if not axes or not found:
        return found or None
    assert source is not None
    if source.rank is None:
        return None
    scales = [1.0] * source.rank
    for axis, scale in zip(axes, found, strict=True):
        scales[axis] = scale
    return scales


def _propagate_pad(node: Node, context: RuleContext) -> Alternatives:
    """Copies of the border carry any map; a constant border must still be one number afterwards."""
    pads = integers(node, "pads", 1) or integers(node, "paddings", 1)
    maps = _maps(node, context)
    source = node.inputs[0]
    assert source is not None
    if pads is None or node.input(3) is not None:
        if any(map_.gain.ndim for map_ in maps):
            return Refusal("unknown-shape", f"which axes Pad {node.name!r} pads is not known")
    else:
        rank = len(pads) // 2
        padded = {axis for axis in range(rank) if pads[axis] or pads[rank + axis]}
        if any(size > 1 and axis in padded for map_ in maps for axis, size in enumerate(map_.gain.shape)):
            return Refusal("channel-axis", f"Pad {node.name!r} pads the channels")
    if node.attr("mode", "constant") == "constant":
        value = _pad_value(node)
        if isinstance(value, Refusal):
            return value
        total = [known.after(context.current(source)) for known in maps[:1]]
        if total and np.unique(total[0](np.full((1,) * max(total[0].gain.ndim, 1), value))).size > 1:
            return Refusal("padding", f"the border of Pad {node.name!r} would no longer be one number")
    return pass_on(node, context)


def _pad_value(node: Node) -> float | Refusal:
    if node.opset < 11:
        return float(node.attr("value", 0.0))
    if node.input(2) is None:
        return 0.0
    if refusal := not_constant(node, 2):
        return refusal
    return float(constant(node, 2).reshape(()))


def _rewrite_pad(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    if node.attr("mode", "constant") != "constant":
        return Rewrite()
    map_, value = current(node.output), _pad_value(node)
    assert not isinstance(value, Refusal)
    new = float(map_(np.full((1,) * max(map_.gain.ndim, 1), value)).reshape(-1)[0])
    if new == value:
        return Rewrite()
    if node.opset < 11:
        return Rewrite(attributes={(node, "value"): new})
    return Rewrite({(node, 2): np.asarray(new)})


_ANY = "any map per channel"
_REDUCED = "any map that does not vary along the reduced axes"

RULES = {
    "MaxPool": Rule("gains >= 0, any shift, any pads, if each window sees its input", "likewise", _maximum),
    "GlobalMaxPool": Rule("gains >= 0, any shift", "likewise", _maximum),
    "AveragePool": Rule(
        "any map, if each window sees its input; no shift where padding is counted", "likewise", _average
    ),
    "GlobalAveragePool": Rule(_ANY, _ANY, _global_average),
    "ReduceMean": Rule(_REDUCED, _REDUCED, _reduce),
    "ReduceSum": Rule(f"{_REDUCED}; the shift is divided by their number", "multiplied by it", _reduce),
    "ReduceMax": Rule(f"{_REDUCED}, gains >= 0", f"{_REDUCED}, gains >= 0", _reduce),
    "ReduceMin": Rule(f"{_REDUCED}, gains >= 0", f"{_REDUCED}, gains >= 0", _reduce),
    "Resize": Rule("any map that does not vary along a resized axis; no tf_crop_and_resize", "likewise", _resize),
    "Upsample": Rule("any map that does not vary along a resized axis", "likewise", _resize),
    "Pad": Rule(
        "any map that does not vary along a padded axis; a constant border must stay one number",
        "likewise",
        _propagate_pad,
        _rewrite_pad,
    ),
}
