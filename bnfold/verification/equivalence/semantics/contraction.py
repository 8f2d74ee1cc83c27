"""Products of two computed tensors that sum over an axis: the gains of other axes come out, an offset of weights' mean.

``sum over k of p[i, k] (g[j] b[k, j] + h[j])`` is ``g[j] (p b)[i, j] + h[j] sum over k of p[i, k]``. The last sum is
known where p is a Softmax along k: its class is entered in ``interpreter.means`` with the axis. Otherwise the offset
belongs to the class of what is multiplied.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod

import numpy as np

from bnfold.ir.graph import Node, Shape
from bnfold.ir.product_views import AttentionView, Axes, ProductView
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned
from bnfold.verification.equivalence.semantics.opaque import opaque

Sides = Sequence[tuple[AbstractValue, Shape | None]]
"""Each factor's state and shape."""


def contraction(interpreter: Interpreter, node: Node) -> bool:
    """MatMul, or an Einsum like it, of two computed values."""
    view = ProductView.of(node)
    if view is None and (node.op != "MatMul" or len(node.inputs) != 2):
        return False
    sides = [
        (interpreter.state_of(value), None if value is None else interpreter.shape(value)) for value in node.inputs
    ]
    kind: Hashable = "matrix product of values" if node.op == "MatMul" else (node.op, interpreter.attributes(node))
    interpreter.states[node.output] = _product(interpreter, node, kind, sides, None if view is None else view.axes)
    return True


def matrix_product(interpreter: Interpreter, node: Node, sides: Sides, alpha: float = 1.0) -> AbstractValue:
    """Return ``alpha A B`` of two matrices, or of blocks of such."""
    ranks = [0 if shape is None else len(shape) for _, shape in sides]
    lead = tuple(range(ranks[0] - 2))
    axes = ((*lead, len(lead), None), (*lead, None, len(lead) + 1)) if ranks[0] == ranks[1] >= 2 else None
    return _product(interpreter, node, "matrix product of values", sides, axes, alpha)


def _product(
    interpreter: Interpreter,
    node: Node,
    kind: Hashable,
    sides: Sides,
    axes: tuple[Axes, Axes] | None,
    alpha: float = 1.0,
) -> AbstractValue:
    """Return the product of two states; without ``axes`` one gain of each comes out, and no other."""
    eps = interpreter.eps(node.output)
    rank = 0 if axes is None else max(axis for own in axes for axis in own if axis is not None) + 1
    gain, error = np.asarray(alpha, np.float64), np.zeros(())
    offset, moved = np.zeros(()), np.zeros(())
    bases = []
    for index, (state, shape) in enumerate(sides):
        own = None if axes is None else axes[index]
        if own is None and (state.affine.gain.size > 1 or state.affine.has_shift):
            state = AbstractValue(interpreter.materialized(node, state, eps))
        elif own is not None:
            state = _levelled(state, own.index(None), eps)
            if _varies(state, own.index(None)):
                state = _along(interpreter, node, state, own.index(None), eps)
            elif axes is None or not _is_mean(interpreter, node, sides[1 - index], axes[1 - index]):
                state = interpreter.unshifted(node, state, eps)
                state = AbstractValue(state.base, state.affine.gain_only(), state.gain_error)
            if not _passes(state, own, shape):
                state = AbstractValue(interpreter.materialized(node, state, eps))
        arrays = state.affine.gain, state.affine.shift, state.gain_error, state.shift_error
        laid = [_laid_out(array, own or (), rank) for array in arrays]
        factor, shift, factor_error, shift_error = aligned(*laid)
        gain, error, offset, moved = aligned(gain, error, offset, moved)
        size, factor_size = np.abs(gain), np.abs(factor)
        gain, error = gain * factor, error * factor_size + size * factor_error
        offset, moved = offset + alpha * shift, moved + abs(alpha) * shift_error
        bases.append(state.base)
    made = interpreter.made(node, (kind, tuple(bases)))
    rounding = LOOSE * eps if interpreter.rounds else 0.0
    gain, error, offset, moved = aligned(gain, error, offset, moved)
    moved = moved + LOOSE * eps * np.abs(offset)
    return AbstractValue(made.base, Affine.of(gain, offset), error + np.abs(gain) * rounding, moved)


def _passes(state: AbstractValue, axes: Axes, shape: Shape | None) -> bool:
    """Return True if a transform varies along no axis that is summed over, nor along one that may be stretched."""
    arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
    sizes = np.broadcast_shapes(*(array.shape for array in aligned(*arrays)))
    varying = [axis for axis, size in enumerate(sizes) if size > 1]
    if any(axes[axis] is None for axis in varying):
        return False
    return not varying or (shape is not None and all(shape[axis] == sizes[axis] for axis in varying))


def _levelled(state: AbstractValue, axis: int, eps: float) -> AbstractValue:
    """Return a state whose gains and offsets along ``axis`` are one number, where they are but for rounding."""
    pairs = (state.affine.gain, state.gain_error), (state.affine.shift, state.shift_error)
    found: list[Array] = []
    for pair in pairs:
        number, error = np.broadcast_arrays(*aligned(*pair))
        if number.ndim <= axis or number.shape[axis] == 1:
            found += [number, error]
            continue
        low, high = number.min(axis=axis, keepdims=True), number.max(axis=axis, keepdims=True)
        middle, bars = (low + high) / 2, error + LOOSE * eps * np.abs(number)
        if not (np.abs(number - middle) <= bars).all():
            return state
        found += [middle, bars.max(axis=axis, keepdims=True)]
    return AbstractValue(state.base, Affine.of(*aligned(found[0], found[2])), found[1], found[3])


def _varies(state: AbstractValue, axis: int) -> bool:
    return any(array.ndim > axis and array.shape[axis] > 1 for array in (state.affine.gain, state.affine.shift))


def _along(interpreter: Interpreter, node: Node, state: AbstractValue, axis: int, eps: float) -> AbstractValue:
    """Return a state that varies along ``axis`` as the class of all its numbers along it, up to one factor."""
    arrays = state.affine.gain, state.affine.shift, state.gain_error, state.shift_error
    gain, shift, gain_error, shift_error = (
        np.moveaxis(np.expand_dims(array, axis), axis + 1, -1) for array in np.broadcast_arrays(*aligned(*arrays))
    )
    bars = gain_error + LOOSE * eps * np.abs(gain), shift_error + LOOSE * eps * np.abs(shift)
    numbers = Numbers(np.concatenate([gain, shift], -1), np.concatenate(bars, -1))
    return interpreter.made(node, ("along", axis, state.base), lambda: numbers, "any")


def _laid_out(array: Array, axes: Axes, rank: int) -> Array:
    """Return a factor's array in the axes of the product."""
    if array.size == 1:
        return array.reshape(())
    full = array.reshape(array.shape + (1,) * (len(axes) - array.ndim))
    order = sorted((axis, own) for own, axis in enumerate(axes) if axis is not None)
    sizes = [1] * rank
    for axis, own in order:
        sizes[axis] = full.shape[own]
    return np.transpose(full, [*(own for _, own in order), axes.index(None)]).reshape(sizes)


def _is_mean(interpreter: Interpreter, node: Node, side: tuple[AbstractValue, Shape | None], axes: Axes) -> bool:
    """Return True if a factor's entries sum to 1 along the axis that is summed over, and there are some."""
    state, shape = side
    if shape is None or len(shape) != len(axes) or not state.is_plain:
        return False
    axis = axes.index(None)
    size = shape[axis]
    some = size > 0 if isinstance(size, int) else size is not None and size in (interpreter.shape(node.output) or ())
    return some and mean_axis(interpreter, state.base, shape) == axis


def mean_axis(interpreter: Interpreter, base: int, shape: Shape) -> int | None:
    """Return the axis along which the entries of a class sum to 1, of a value of ``shape``; None for none."""
    if base in interpreter.means:
        return interpreter.means[base]
    if base in interpreter.turns:
        root, perm = interpreter.turns[base]
        before: list[int | str | None] = [None] * len(perm)
        for place, axis in enumerate(perm):
            before[axis] = shape[place]
        found = mean_axis(interpreter, root, tuple(before))
        return None if found is None else perm.index(found)
    if base not in interpreter.views:
        return None
    root, sizes = interpreter.views[base]
    own = mean_axis(interpreter, root, sizes)
    if own is None or None in sizes[own:]:
        return None
    behind = prod(size or 0 for size in sizes[own + 1 :])
    for place, length in enumerate(shape):
        rest = shape[place + 1 :]
        if length == sizes[own] and all(isinstance(n, int) for n in rest):
            if prod(n for n in rest if isinstance(n, int)) == behind:
                return place
    return None


def softmax(interpreter: Interpreter, node: Node) -> bool:
    """Softmax: some function of what it reads, whose entries sum to 1 along an axis."""
    opaque(interpreter, node)
    rank = node.output.rank
    if rank is not None:
        axis = int(node.attr("axis", -1 if node.opset >= 13 else 1)) % rank
        if node.opset >= 13 or axis == rank - 1:  # before, it was one over all axes from its own on
            interpreter.means[interpreter.states[node.output].base] = axis
    return True


def narrowed(interpreter: Interpreter, node: Node) -> bool:
    """A cast that rounds: some function of what it reads, whose entries sum to 1 if those did."""
    opaque(interpreter, node)
    source = node.inputs[0]
    shape = None if source is None else interpreter.shape(source)
    state = interpreter.state_of(source)
    axis = mean_axis(interpreter, state.base, shape) if shape is not None and state.is_plain else None
    if axis is not None:
        interpreter.means[interpreter.states[node.output].base] = axis
    return True


def attention(interpreter: Interpreter, node: Node) -> bool:
    """Attention: weights made of queries and keys, and their product with the values."""
    view, values = AttentionView.of(node), node.input(2)
    if view is None or values is None:
        return False
    others = [
        None if value is None else interpreter.materialized(node, interpreter.state_of(value), interpreter.eps(value))
        for value in (*node.inputs[:2], node.input(3))
    ]
    made = interpreter.made(node, ("attention weights", interpreter.attributes(node), *others))
    shape, query = interpreter.shape(values), interpreter.shape(node.output)
    if shape is None or query is None:
        return False
    rank = len(shape)
    if view.is_mean:
        interpreter.means[made.base] = rank - 1
    axes: Axes = (*range(rank - 1), None)
    weights = made, (*query[:-1], shape[-2])
    sides = [weights, (interpreter.state_of(values), shape)]
    interpreter.states[node.output] = _product(interpreter, node, "attention", sides, (axes, view.axes))
    return True


SEMANTICS = {"Softmax": softmax, "Attention": attention}
