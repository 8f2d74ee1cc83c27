"""Products with a constant along any axes: the constant takes scales along its own axes, others go on to the data."""

from __future__ import annotations

from math import prod

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant
from bnfold.ir.product_views import LabelledProduct
from bnfold.numerics.affine import Affine, leading
from bnfold.numerics.rounding import ulp
from bnfold.rules import quantized
from bnfold.rules.layout import MOST_ENTRIES, Array
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Assignments,
    Rewrite,
    RuleContext,
    Transforms,
    not_constant,
    singular,
)

SAME = 1e-14
"""Relative difference of two scales that are one number, computed twice."""


def propagate(node: Node, context: RuleContext) -> Alternatives:
    """A scale is absorbed along the constant's axes, else it passes along axes that data and result have.

    An offset of the data goes on to the result; there is no bias to take one of the result.
    """
    view = LabelledProduct.of(node)
    if view is None:
        return Refusal("unknown-shape", f"{node.label} is no product with one constant, or of unknown shape")
    if refusal := not_constant(node, view.constant):
        return refusal
    source = node.inputs[view.data]
    assert source is not None
    before, after = context.proposed(source), context.proposed(node.output)
    if before is not None and (refusal := singular(before, node)):
        return refusal
    if after is None:
        assert before is not None
        gain = _spread(before.gain, view.read, view)
        passed = np.ones(()) if _lies_in(gain, view.held, view) and not _is_fixed(node, view) else gain
        if not _lies_in(passed, view.result, view):
            return _off_axes(node)
        carried = Affine.of(_axes(passed, view.result, view), _offset(node, view, context, passed / gain))
        return ABSORBED if carried.is_identity else [[(node.output, carried)]]
    gain = _spread(after.gain, view.result, view)
    found: list[Assignments] = []
    if before is not None:
        ratio = gain / _spread(before.gain, view.read, view)
        if not _lies_in(ratio, view.held, view) or (_is_fixed(node, view) and not _is_one(ratio)):
            return _off_axes(node)
        if after.agrees(Affine.of(after.gain, _offset(node, view, context, ratio))):
            return ABSORBED
        return Refusal("no-bias", f"{node.label} has no bias")
    if _lies_in(gain, view.held, view) and not _is_fixed(node, view):
        found.append([])
    if after.invertible and _lies_in(gain, view.read, view):
        found.append([(source, Affine.of(_axes(gain, view.read, view), 0.0))])
    if not found:
        return _off_axes(node)
    if not after.has_shift:
        return found
    shift, total = _spread(after.shift, view.result, view), _even_sum(node, view, context.current)
    if total and _lies_in(gain, view.read, view) and _lies_in(shift, view.read, view):
        own = _axes(gain, view.read, view), _axes(shift / total, view.read, view)
        return [[(source, Affine.of(*leading(*own)))]]
    return Refusal("no-bias", f"{node.label} has no bias")


def rewrite(node: Node, current: Transforms) -> Rewrite:
    """``k' = k G / g``, which varies along the constant's axes alone."""
    view = LabelledProduct.of(node)
    assert view is not None
    ratio = _ratio(node, view, current)
    if _is_one(ratio):
        return Rewrite()
    own = _axes(ratio, view.held, view)
    return Rewrite({(node, view.constant): constant(node, view.constant).astype(np.float64) * own})


def _off_axes(node: Node) -> Refusal:
    return Refusal("channel-axis", f"the transform varies along axes that {node.label} does not keep apart")


def _is_fixed(node: Node, view: LabelledProduct) -> bool:
    """Return True for integers that are the constant's: no scale goes into them here."""
    return quantized.source_of(node, view.constant) is not None


def _ratio(node: Node, view: LabelledProduct, current: Transforms) -> Array:
    source = node.inputs[view.data]
    assert source is not None
    return _spread(current(node.output).gain, view.result, view) / _spread(current(source).gain, view.read, view)


def _spread(array: Array, own: str, view: LabelledProduct) -> Array:
    """An array that is laid out like a transform of a value with the labels ``own``, with an axis for each label."""
    full = array.reshape(array.shape + (1,) * (len(own) - array.ndim))
    present = [label for label in view.labels if label in own]
    moved = full.transpose([own.index(label) for label in present])
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if label in own else 1 for label in view.labels])


def _axes(array: Array, own: str, view: LabelledProduct) -> Array:
    """The other way round, for an array that varies along no other label."""
    if array.ndim == 0:
        return array
    index = tuple(slice(None) if label in own else 0 for label in view.labels)
    kept = [label for label in view.labels if label in own]
    return array[index].transpose([kept.index(label) for label in own])


def _lies_in(array: Array, labels: str, view: LabelledProduct) -> bool:
    """Return True if the array varies along these labels alone; up to the ulps of its computation."""
    for axis, label in enumerate(view.labels if array.ndim else ""):
        if label not in labels and array.shape[axis] > 1:
            first = np.take(array, [0], axis)
            if (np.abs(array - first) > SAME * np.abs(first)).any():
                return False
    return True


def _is_one(ratio: Array) -> bool:
    return bool((np.abs(ratio - 1.0) <= SAME).all())


def _even_sum(node: Node, view: LabelledProduct, current: Transforms) -> float | None:
    """Return what the constant sums to over what the result lacks, where that is one number up to half an ulp.

    Rows that are means, say: then an offset of the data that varies along none of what is added up comes out so.
    """
    if set(view.read) - set(view.result) != set(view.held) - set(view.result):
        return None
    now: Array = _spread(constant(node, view.constant).astype(np.float64), view.held, view) * _ratio(
        node, view, current
    )
    if now.ndim and not _lies_in(now, view.held, view):
        return None
    sums = now.sum(axis=tuple(range(len(view.result), len(view.labels)))) * node.attr("alpha", 1.0)
    value = node.inputs[view.constant]
    half = float(ulp(np.ones(()), np.float32 if value is None or value.dtype is None else value.dtype)) / 2
    middle = float(sums.max() + sums.min()) / 2
    return middle if (np.abs(sums - middle) <= half * abs(middle)).all() else None


def _offset(node: Node, view: LabelledProduct, context: RuleContext, ratio: Array) -> Array:
    """Return what the offset of the data adds to the result, where the constant is multiplied by ``ratio``.

    Raises ValueError where the sizes are not known.
    """
    source = node.inputs[view.data]
    assert source is not None
    before = context.proposed(source)
    if before is None or not before.has_shift:
        return np.zeros(())
    shift = _spread(before.shift, view.read, view)
    even = _even_sum(node, view, context.current) if _lies_in(shift, view.result, view) and _is_one(ratio) else None
    if even is not None:
        return _axes(shift * even, view.result, view)
    now = _spread(constant(node, view.constant).astype(np.float64), view.held, view)
    terms = [now, shift, np.asarray(ratio), _ratio(node, view, context.current)]
    shape = np.broadcast_shapes(*(term.shape for term in terms))
    if prod(shape) > MOST_ENTRIES:
        raise ValueError("an offset would vary over too many entries")
    total = np.full(shape, node.attr("alpha", 1.0))
    for term in terms:
        total = total * term
    sizes = dict(zip(view.read, source.shape or (), strict=True))
    for axis, label in enumerate(view.labels):
        if label not in view.result and label not in view.held and total.shape[axis] == 1:
            size = sizes[label]
            if not isinstance(size, int):
                raise ValueError("how many entries are added up is not known")
            total = total * size
    total = total.sum(axis=tuple(range(len(view.result), len(view.labels))), keepdims=True)
    return _axes(total, view.result, view)
