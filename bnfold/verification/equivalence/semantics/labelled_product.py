"""Products with a constant along labelled axes: Einsum, and MatMul with a constant that is no plain matrix."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant
from bnfold.ir.product_views import LabelledProduct
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import ulp
from bnfold.rules.layout import MOST_ENTRIES
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned, evened
from bnfold.verification.equivalence.semantics.operands import floats


def labelled_product(interpreter: Interpreter, node: Node) -> bool:
    """``sum k (g b + h)``: gains along axes of the result come out, others are taken into the constant's entries.

    Per position of the constant's axes in the result, the entries make the class up to a factor. ``sum k h`` is a
    shift.
    """
    view = LabelledProduct.of(node)
    source = None if view is None else node.inputs[view.data]
    if view is None or source is None or floats(node, view.constant) is None:
        return False
    state = interpreter.state_of(source)
    eps = interpreter.eps(source)
    gain, gain_error = _even_gain(view, state, eps)
    varying = _labels(gain, view.read)
    comes_out = all(label in view.result for label in varying)
    if not comes_out and any(label in view.result for label in varying):
        return False
    weight = constant(node, view.constant).astype(np.float64)
    lead = "".join(label for label in view.result if label in view.held)
    inside = "" if comes_out else varying
    summed = "".join(label for label in dict.fromkeys(view.held + inside) if label not in view.result)
    key = ("labelled product", state.base, _canonical(view, summed), weight.shape)
    dtype, _ = interpreter.precision(node.inputs[view.constant], key)
    factor, factor_error = np.ones(()), np.zeros(())
    if not comes_out:
        factor, factor_error = (
            _over(part, inside, view.read) for part in (gain, _largest(gain_error, inside, view.read))
        )
    sizes = dict(zip(view.held, weight.shape, strict=True))

    def entries() -> Numbers:
        def laid_out(first: Array, second: Array) -> Array:
            whole = np.einsum(f"{view.held},{inside}->{lead}{summed}", first, second)
            return np.asarray(whole.reshape([*(sizes.get(label, 1) for label in view.result), -1]))

        bars = laid_out(np.abs(weight), factor_error)
        if interpreter.rounds:
            bars = bars + laid_out(LOOSE * ulp(constant(node, view.constant), dtype), np.abs(factor))
        return Numbers(laid_out(weight, factor), bars)

    result = interpreter.made(node, key, entries, "any")
    if comes_out:
        result = scaled(result, _as_result(gain, view), _as_result(_largest(gain_error, view.result, view.read), view))
    if state.affine.has_shift or state.shift_error.any():
        moved = shift_behind(node, view, state, eps)
        if moved is None:
            return False
        result = result.shifted(*moved)
    interpreter.states[node.output] = result
    return True


def _even_gain(view: LabelledProduct, state: AbstractValue, eps: float) -> tuple[Array, Array]:
    """Return gain and error of the data, the same along all axes that are summed over, or all others, if it is so."""
    gain, error = state.affine.gain, state.gain_error
    for inside in (False, True):
        axes = [axis for axis, label in enumerate(view.read) if (label in view.result) is inside]
        gain, error = evened(gain, error, axes, eps)
    return gain, error


def shift_behind(node: Node, view: LabelledProduct, state: AbstractValue, eps: float) -> tuple[Array, Array] | None:
    """Return ``sum k h``, laid out as a transform of the result, and a bound of its error; None for unknown sizes."""
    source = node.inputs[view.data]
    shift, shift_error = np.broadcast_arrays(*aligned(state.affine.shift, state.shift_error))
    moved = _labels(shift, view.read)
    count = None if source is None or source.shape is None else _count(view, moved, source.shape)
    if count is None:
        return None
    weight = constant(node, view.constant).astype(np.float64)
    own, error = (_over(array, moved, view.read) for array in (shift, shift_error))
    made = "".join(label for label in view.result if label in view.held + moved)
    sizes = dict(zip(view.held + moved, weight.shape + own.shape, strict=True))
    if prod(sizes[label] for label in made) > MOST_ENTRIES:
        return None

    def through(weights: Array, values: Array) -> Array:
        return np.asarray(np.einsum(f"{view.held},{moved}->{made}", weights, values))

    total = count * through(weight, own)
    spread = count * np.sqrt(through(np.square(weight), np.square(error)))
    spread = spread + LOOSE * eps * (np.abs(total) + count * np.sqrt(through(np.square(weight), np.square(own))))
    extent = [total.shape[made.index(label)] if label in made else 1 for label in view.result]
    return total.reshape(extent), spread.reshape(extent)


def scaled(state: AbstractValue, gain: Array, error: Array) -> AbstractValue:
    """Return ``gain`` times a state, which is laid out like a transform and known up to ``error``."""
    gain, error, own, shift, own_error, shift_error = aligned(
        gain, error, state.affine.gain, state.affine.shift, state.gain_error, state.shift_error
    )
    errors = np.abs(gain) * own_error + np.abs(own) * error
    return AbstractValue(
        state.base, Affine.of(gain * own, gain * shift), errors, np.abs(gain) * shift_error + np.abs(shift) * error
    )


def apart(state: AbstractValue, axis: int, eps: float) -> tuple[AbstractValue, Array, Array] | None:
    """Split a transform that varies along other axes: the state with the gain of ``axis``, the other gain, its error.

    None where it does not, or where the gain is no product of the two. The state has no shift.
    """
    gain, error = np.broadcast_arrays(*aligned(state.affine.gain, state.gain_error))
    elsewhere = [k for k in range(gain.ndim) if k != axis]
    width = gain.shape[axis] if gain.ndim > axis else 1
    if evened(gain, error, elsewhere, eps)[0].size <= width:
        return None
    own = gain[tuple(slice(None) if k == axis else slice(1) for k in range(gain.ndim))]
    if own.size == 1:
        own = np.ones(own.shape)
    if not (own != 0).all():
        return None
    others, others_error = evened(gain / own, error / np.abs(own), [axis], eps)
    if others.ndim > axis and others.shape[axis] > 1:
        return None
    others_error = _largest(others_error, "".join(chr(k) for k in elsewhere), "".join(map(chr, range(gain.ndim))))
    return AbstractValue(state.base, Affine.of(own, 0.0)), others, others_error


def _largest(error: Array, labels: str, own: str) -> Array:
    """The largest entry along each axis whose label is none of ``labels``."""
    axes = tuple(axis for axis, label in enumerate(own[: error.ndim]) if label not in labels)
    return np.asarray(error.max(axis=axes, keepdims=True))


def _labels(array: NDArray[Any], own: str) -> str:
    """The labels along which an array varies that is laid out like a transform."""
    return "".join(label for label, size in zip(own, array.shape, strict=False) if size > 1)


def _over(array: Array, labels: str, own: str) -> Array:
    """An array laid out like a transform with exactly these axes; it may be the same along some of them."""
    full = array.reshape(array.shape + (1,) * (len(own) - array.ndim))
    index = tuple(slice(None) if label in labels else 0 for label in own)
    kept = [label for label in own if label in labels]
    return full[index].transpose([kept.index(label) for label in labels])


def _as_result(array: Array, view: LabelledProduct) -> Array:
    """An array laid out like a transform of the data, which varies along axes of the result, as one of the result."""
    labels = "".join(label for label in view.result if label in _labels(array, view.read))
    found = _over(array, labels, view.read)
    return found.reshape([found.shape[labels.index(label)] if label in labels else 1 for label in view.result])


def _count(view: LabelledProduct, moved: str, shape: Any) -> int | None:
    """How many entries of the data are added up that differ in nothing; None where that is not known."""
    alike = [size for label, size in zip(view.read, shape, strict=True) if label not in view.held + view.result + moved]
    return prod(alike) if all(isinstance(size, int) for size in alike) else None


def _canonical(view: LabelledProduct, summed: str) -> tuple[tuple[int, ...], ...]:
    """The labels by the order in which the data and the constant have them."""
    order = list(dict.fromkeys(view.read + view.held))
    return tuple(tuple(order.index(label) for label in term) for term in (view.read, view.held, view.result, summed))
