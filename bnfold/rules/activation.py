"""Nonlinear operators that some maps pass all the same: Relu and its kin are homogeneous, Clip has bounds to move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import Affine
from bnfold.rules.elementwise import aligned_constant, like
from bnfold.rules.identity import parameter_refusal, pass_on
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, constant, constant_shape, not_constant

Array = NDArray[np.float64]
Transforms = Callable[[Value], Affine]


def _positive_gains(node: Node, context: RuleContext) -> Alternatives:
    """``f(a x) = a f(x)`` for ``a > 0``: Relu, LeakyRelu."""
    for value in (node.inputs[0], node.output):
        map_ = context.proposed(value)
        if map_ is not None and (map_.has_shift or not map_.positive):
            what = "a shift" if map_.has_shift else "a gain that is not positive"
            return Refusal("nonlinear", f"{what} does not pass {node.op} {node.name!r}")
    return pass_on(node, context)


def _propagate_prelu(node: Node, context: RuleContext) -> Alternatives:
    """Positive gains pass. A negative one swaps the halves: gain ``a`` in, ``a / s`` out, and the slope ``1 / s``."""
    slope = _slope(node, context.current)
    if isinstance(slope, Refusal):
        return slope
    source = node.inputs[0]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    for map_ in (before, after):
        if map_ is not None and (map_.has_shift or not map_.invertible):
            return Refusal("nonlinear", f"a shift or a gain of zero does not pass PRelu {node.name!r}")
    if before is not None:
        gain = _full(before.gain, slope.ndim)
        if ((gain < 0) & (slope == 0)).any():
            return Refusal("nonlinear", f"a negative gain does not pass PRelu {node.name!r}, whose slope is 0 there")
        with np.errstate(divide="ignore", invalid="ignore"):
            carried = Affine.of(np.where(gain > 0, gain, gain / slope), 0.0)
        if after is None:
            return [[(node.output, carried)]]
        return ABSORBED if carried.agrees(after) else Refusal("consumers", f"PRelu {node.name!r} would need two maps")
    if after is None:
        return parameter_refusal(node)
    gain = _full(after.gain, slope.ndim)
    if ((gain < 0) & (slope <= 0)).any():
        return Refusal("nonlinear", f"a negative gain does not pass PRelu {node.name!r}, whose slope is not positive")
    return [[(source, Affine.of(np.where(gain > 0, gain, gain * slope), 0.0))]]


def _slope(node: Node, current: Transforms) -> Array | Refusal:
    """The slope as it stands after the folds so far, aligned with the input."""
    if refusal := not_constant(node, 1):
        return refusal
    aligned = aligned_constant(node, 0, 1)
    if isinstance(aligned, Refusal):
        return aligned
    source = node.inputs[0]
    assert source is not None
    gain = _full(current(source).gain, aligned.ndim)
    with np.errstate(divide="ignore"):
        return np.where(gain > 0, aligned, 1.0 / aligned) if (gain < 0).any() else aligned


def _rewrite_prelu(node: Node, current: Transforms) -> Rewrite:
    slope = _slope(node, current)
    assert not isinstance(slope, Refusal)
    return Rewrite({(node, 1): like(slope, constant_shape(node, 1))})


def _full(array: Array, rank: int) -> Array:
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


def _propagate_clip(node: Node, context: RuleContext) -> Alternatives:
    """The bounds move with the map: each must stay one number. Negative gains swap them."""
    low, high = _bounds(node)
    source = node.inputs[0]
    assert source is not None
    if isinstance(low, Refusal):
        return low
    for value in (source, node.output):
        map_ = context.proposed(value)
        if map_ is None:
            continue
        total = map_.after(context.current(value))
        if not total.positive and (not (total.gain < 0).all() or low is None or high is None or low > high):
            return Refusal("nonlinear", f"gains that are not positive don't pass Clip {node.name!r}")
        if any(bound is not None and _moved_bound(total, bound) is None for bound in (low, high)):
            return Refusal("nonlinear", f"the bounds of Clip {node.name!r} would differ from channel to channel")
    return pass_on(node, context)


def _moved_bound(map_: Affine, bound: float) -> float | None:
    """Where the map takes a bound; None if that differs from channel to channel."""
    places = np.unique(map_.gain * bound + map_.shift)
    return float(places[0]) if len(places) == 1 else None


def _bounds(node: Node) -> tuple[float | Refusal | None, float | None]:
    if node.opset < 11:
        return node.attr("min"), node.attr("max")
    if refusal := not_constant(node, 1, 2):
        return refusal, None
    low, high = (float(constant(node, i).reshape(())) if node.input(i) is not None else None for i in (1, 2))
    return low, high


def _rewrite_clip(node: Node, current: Transforms) -> Rewrite:
    map_ = current(node.output)
    low, high = _bounds(node)
    bounds = (low, high) if map_.positive else (high, low)
    rewrite = Rewrite()
    for index, (old, bound) in enumerate(zip((low, high), bounds, strict=True), start=1):
        if bound is None or isinstance(bound, Refusal):
            continue
        new = _moved_bound(map_, bound)
        assert new is not None
        if new == old:
            continue
        if node.opset < 11:
            rewrite.attributes[node, "min" if index == 1 else "max"] = new
        else:
            rewrite.constants[node, index] = np.asarray(new)
    return rewrite


RULES = {
    "Relu": Rule("positive gains, no shift", "positive gains, no shift", _positive_gains),
    "LeakyRelu": Rule("positive gains, no shift", "positive gains, no shift", _positive_gains),
    "PRelu": Rule(
        "gains without shift; a negative one inverts the slope, which must be positive",
        "gains without shift; a negative one inverts the slope, which must not be 0",
        _propagate_prelu,
        _rewrite_prelu,
    ),
    "Clip": Rule(
        "any map that takes each bound to one number; the bounds move, negative gains swap them",
        "likewise",
        _propagate_clip,
        _rewrite_clip,
    ),
}
