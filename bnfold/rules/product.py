"""Products of two tensors, as they pass transforms of axes that they don't sum over.

``sum over k of A[i, k] (g[j] B[k, j] + h[j]) = g[j] y[i, j] + h[j] sum over k of A[i, k]``: a scale passes from an
operand to the output and back. So does an offset, times the sum of the other operand along k, where that is one number:
1 for a Softmax (:mod:`bnfold.rules.sums_to_one`), the sum of each row for a constant matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.product_views import AttentionView, Axes, ProductView
from bnfold.numerics.affine import Affine
from bnfold.rules.layout import Array, Unmovable, moved
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Assignments, Rule, RuleContext
from bnfold.rules.sums_to_one import sums_to_one

Total = Callable[[int], float | None]
"""What the operand that is not this one sums to for each entry of the output; None where that is not one number."""


def propagate(node: Node, context: RuleContext, data: list[int], axes: tuple[Axes, ...], total: Total) -> Alternatives:
    """Pass a transform of the output to one of the ``data`` operands, or theirs to the output.

    ``axes`` says for each operand which axes of the output its own ones are (:class:`ProductView`).
    """
    operands = {index: value for index in data if (value := node.inputs[index]) is not None}
    after = context.proposed(node.output)
    given = {index: transform for index, value in operands.items() if (transform := context.proposed(value))}
    passing = {index: transform for index, transform in given.items() if not transform.is_identity}
    free = [index for index in operands if index not in given]
    if len(passing) > 1 and any(transform.has_shift for transform in passing.values()):
        return Refusal("nonlinear", f"an offset of one factor does not pass {node.label}, whose other one is scaled")
    try:
        if not passing and free and after is not None:
            return _backward(node, after, {index: operands[index] for index in free}, axes, total)
        carried = Affine.of(1.0, 0.0)
        for index, transform in passing.items():
            carried = _moved(node, transform, index, axes[index], total, forward=True).after(carried)
    except Unmovable as error:
        return Refusal("channel-axis", f"{node.label}: {error}")
    except _NoBias as error:
        return Refusal("no-bias", str(error))
    if after is None:
        return [[(node.output, carried)]]
    return ABSORBED if carried.agrees(after) else Refusal("consumers", f"{node.label} would need two transforms")


def _backward(
    node: Node, after: Affine, operands: dict[int, Value], axes: tuple[Axes, ...], total: Total
) -> Alternatives:
    """Give the output's transform to one operand: the last one that can have it first, which holds the values."""
    found: list[Assignments] = []
    errors: list[Exception] = []
    for index in sorted(operands, reverse=True):
        try:
            found.append([(operands[index], _moved(node, after, index, axes[index], total, forward=False))])
        except (Unmovable, _NoBias) as error:
            errors.append(error)
    if found:
        return found
    raise next((error for error in errors if isinstance(error, _NoBias)), errors[0])


def of_two_values(node: Node, context: RuleContext) -> Alternatives:
    """A product of two computed values."""
    view = ProductView.of(node)
    if view is None:
        return Refusal("dynamic-weights", f"{node.label} has two non-constant inputs")

    def total(index: int) -> float | None:
        other = node.inputs[1 - index]
        assert other is not None
        known = context.current(other).is_identity and sums_to_one(other, view.summed(1 - index), node.output)
        return 1.0 if known else None

    return propagate(node, context, [0, 1], view.axes, total)


class _NoBias(Exception):
    """An offset has no place to go: the message says why."""


def _moved(node: Node, transform: Affine, index: int, axes: Axes, total: Total, *, forward: bool) -> Affine:
    """Return an operand's transform as the output's, or the output's as that operand's. Raises Unmovable, _NoBias."""
    source, rank = node.inputs[index], node.output.rank
    assert source is not None
    if rank is None or source.shape is None:
        raise Unmovable("its rank is not known")
    factor = 1.0
    if transform.has_shift:
        known = total(index)
        if known is None or (known == 0 and not forward):
            raise _NoBias(f"{node.label} has no bias, and what it sums over need not sum to one number")
        factor = known if forward else 1.0 / known
    if forward:
        found = moved(transform, len(axes), partial(_to_output, axes=axes, rank=rank, factor=factor))
    else:
        found = moved(transform, rank, partial(_to_operand, axes=axes, factor=factor))
        for axis, size in enumerate(found.gain.shape):
            if size > 1 and source.shape[axis] != size:
                raise Unmovable(f"{source.name!r} may be broadcast along the axis on which the transform varies")
    return found


def _to_output(array: Array, fill: float, *, axes: Axes, rank: int, factor: float) -> Array:
    sizes = [1] * rank
    order = sorted((axis, own) for own, axis in enumerate(axes) if axis is not None)
    for axis, own in order:
        sizes[axis] = array.shape[own]
    summed = axes.index(None)
    if array.shape[summed] != 1:
        raise Unmovable("the transform varies along the axis that is summed over")
    array = array * factor if fill == 0 else array
    return np.transpose(array, [*(own for _, own in order), summed]).reshape(sizes)


def _to_operand(array: Array, fill: float, *, axes: Axes, factor: float) -> Array:
    kept = [axis for axis in axes if axis is not None]
    others = [axis for axis in range(array.ndim) if axis not in kept]
    if any(array.shape[axis] != 1 for axis in others):
        raise Unmovable("the transform varies along an axis that comes from the other factor")
    array = array * factor if fill == 0 else array
    sizes = [1 if axis is None else array.shape[axis] for axis in axes]
    return np.transpose(array, [*kept, *others]).reshape(sizes)


def _attention(node: Node, context: RuleContext) -> Alternatives:
    """``softmax(q k') v``: a mean of values, unless a row of the mask lets no key through."""
    others = (context.proposed(value) for value in (*node.inputs[:2], *node.inputs[3:]))
    if any(transform is not None and not transform.is_identity for transform in others):
        return Refusal("nonlinear", f"{node.label} does not carry the transform of anything but its values")
    view = AttentionView.of(node)
    if view is None:
        return Refusal("unknown-shape", f"{node.label} keeps its values, or what its heads are is not known")

    def total(_: int) -> float | None:
        return 1.0 if view.is_mean else None

    return propagate(node, context, [2], ((), (), view.axes), total)


RULES = {
    "Attention": Rule(
        "any transform of the values' channels, if each head has its own; an offset only without a computed mask",
        "on the values likewise",
        _attention,
    ),
}
