"""Linear operators with constant weights: the rows ``W g`` make the class, ``W h`` joins the bias."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import ConvView, constant, gemm_term_fits
from bnfold.ir.product_views import LabelledProduct, MatrixView
from bnfold.numerics.affine import Affine
from bnfold.numerics.linear import conv_transpose_view, conv_view, gemm_view
from bnfold.numerics.rounding import ulp
from bnfold.verification.equivalence.abstract_values import AbstractValue, Either, Layer
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned
from bnfold.verification.equivalence.semantics.contraction import contraction
from bnfold.verification.equivalence.semantics.labelled_product import (
    apart,
    labelled_product,
    scaled,
    shift_behind,
)
from bnfold.verification.equivalence.semantics.operands import floats
from bnfold.verification.equivalence.semantics.views import as_matrix, turned_state


@dataclass(frozen=True)
class Product:
    """A linear operator ``y = alpha W x + beta c``.

    ``view`` gives W as ``(group, out, in, taps)``, ``key`` the class of ``W x`` for the class of x. ``inner`` channels
    lie on ``axis`` of x and of y; ``weight`` and ``bias`` are the indices of W and c among the inputs. ``outer`` is the
    number of output channels of a product with a matrix, None for a convolution. ``on_last_axis``: the channels lie on
    the last axis of x, so that the product is the same for each shape of x before it.
    """

    view: Callable[[], Array]
    key: Callable[[int], Hashable]
    inner: int
    axis: int = 1
    weight: int = 1
    bias: int | None = 2
    alpha: float = 1.0
    beta: float = 1.0
    outer: int | None = None
    on_last_axis: bool = False


def conv(interpreter: Interpreter, node: Node) -> bool:
    """Conv and ConvTranspose: rows of weights per output channel, on axis 1."""
    shape = floats(node, 1)
    if shape is None or (node.input(2) is not None and floats(node, 2) is None):
        return False
    view = ConvView(node, shape)
    if not view.is_valid:
        return False
    state = interpreter.state_of(node.inputs[0])
    padding = view.pads()
    eps = interpreter.eps(node.inputs[1])
    if state.affine.has_shift and (view.is_transposed or padding is None or any(padding)):
        state = interpreter.unshifted(node, state, eps)
    base = state.base
    whole = padding is not None and (not state.affine.has_shift or not any(padding))  # a shift is the same everywhere
    if base in interpreter.pads and not view.is_transposed and padding is not None and whole:
        base, extra = interpreter.pads[base]
        padding = [a + b for a, b in zip(padding, extra, strict=True)]
    rows = conv_transpose_view if view.is_transposed else conv_view
    settings = [
        (name, value)
        for name, value in interpreter.attributes(node)
        if name not in _SPELLINGS and not (name in _PLAIN and set(value) <= _PLAIN[name])
    ]
    spellings: list[Hashable] = [] if padding is None else [tuple(padding)]
    if view.auto_pad not in ("NOTSET", "VALID"):
        spellings.append(view.auto_pad)

    def key(base: int) -> Either:
        return Either(tuple((node.op, base, shape, *settings, spelling) for spelling in spellings))

    product = Product(lambda: rows(constant(node, 1), view.group), key, view.inputs)
    return _linear(interpreter, node, state, base, product)


_SPELLINGS = frozenset({"pads", "auto_pad", "kernel_shape"})


_PLAIN = {"strides": {1}, "dilations": {1}, "output_padding": {0}}


def gemm(interpreter: Interpreter, node: Node) -> bool:
    """``alpha A B + beta C`` with constant B and C: rows per output feature, on axis 1; torch's Linear on the last."""
    if floats(node, 1) is None or (node.input(2) is not None and floats(node, 2) is None):
        return False
    view = MatrixView.of(node)
    if view is None or not gemm_term_fits(node, view.outer):
        return False
    state = interpreter.state_of(node.inputs[0])
    if node.attr("transA", 0):
        state = turned_state(interpreter, node, state, (1, 0))
    product = Product(
        lambda: gemm_view(constant(node, 1), view.rows_are_outputs),
        lambda base: ("product", base, view.inner, view.outer, view.axis),
        view.inner,
        view.axis,
        alpha=node.attr("alpha", 1.0),
        beta=node.attr("beta", 1.0),
        outer=view.outer,
        on_last_axis=True,
    )
    return _linear(interpreter, node, state, state.base, product)


def matmul(interpreter: Interpreter, node: Node) -> bool:
    """A product with a constant matrix: a Gemm without its bias, in any rank."""
    view = MatrixView.of(node)
    if view is None and not any(map(node.graph.constants.is_constant, node.inputs)):
        return contraction(interpreter, node)
    if view is None:
        return labelled_product(interpreter, node)
    if floats(node, view.weight) is None:
        return False
    state = interpreter.state_of(node.inputs[view.data])
    whole, others = state, LabelledProduct.of(node)
    split = None if others is None else apart(state, view.axis, interpreter.eps(node.output))
    moved = None if split is None or others is None else shift_behind(node, others, whole, interpreter.eps(node.output))
    state = state if split is None or moved is None else split[0]

    def rows() -> Array:
        matrix = constant(node, view.weight)
        return gemm_view(matrix.reshape(matrix.shape[-2:]), view.rows_are_outputs)

    def key(base: int) -> Hashable:
        return ("product", base, view.inner, view.outer, view.axis)

    product = Product(
        rows, key, view.inner, view.axis, weight=view.weight, bias=None, outer=view.outer, on_last_axis=view.data == 0
    )
    if not _linear(interpreter, node, state, state.base, product):
        return False
    if split is not None and moved is not None:
        made = scaled(interpreter.states[node.output], *split[1:]).shifted(*moved)
        interpreter.states[node.output] = made
        interpreter.layers[node] = replace(interpreter.layers[node], output=made)
    return True


def _linear(interpreter: Interpreter, node: Node, state: AbstractValue, base: int, product: Product) -> bool:
    """Set the state of ``y = alpha W x + beta c``: rows ``W g`` make the class, ``W h`` joins the bias.

    ``base`` is the class to read, where a padding before the operator has been taken into it.
    """
    source, axis = node.inputs[0 if product.weight else 1], product.axis
    if product.outer is not None and _varies_beside(state, axis):
        return _beside(interpreter, node, state, product)
    vectors = state.affine.vectors(axis, product.inner)
    shape = None if source is None or not product.on_last_axis else interpreter.shape(source)
    shape = shape[::-1] if shape is not None and node.attr("transA", 0) else shape
    matrix = as_matrix(interpreter, node, state, shape, product.inner)
    if matrix is not None and vectors is None and matrix.rest is None:
        matrix = None
    gain_error, shift_error = state.gain_error, state.shift_error
    if vectors is None:
        vectors, rest, gain_error = _divided(state, axis, product.inner)
        if matrix is not None and matrix.rest is not None:
            vectors, rest, gain_error = _divided(matrix.rest, 1, product.inner)
        base = interpreter.materialized(node, rest, interpreter.eps(source))
        shift_error = np.zeros(())
    elif matrix is not None:
        base = matrix.base
    gain_error, shift_error = (_along(error, axis, product.inner) for error in (gain_error, shift_error))
    if interpreter.is_exact(source):
        shift_error = np.zeros_like(shift_error)
    row_axis = axis if matrix is None else 1
    key = product.key(base) if matrix is None else ("product of rows", base, product.inner, product.outer)
    weight = node.inputs[product.weight]
    dtype, eps = interpreter.precision(weight, key)
    summed = weight is not None and node.graph.constants.is_sum(weight)

    def rows() -> Numbers:
        return _rows(product, vectors[0], gain_error, dtype if interpreter.rounds or summed else None, row_axis, summed)

    result = interpreter.made(node, key, rows, "any")
    row_base = result.base
    if matrix is not None and product.outer is not None:
        result = matrix.restored(interpreter, node, result, product.outer)
    result = result.only(_reading(product, vectors[0]))
    if vectors[1].any() or shift_error.any():
        result = result.shifted(*_forwarded_shift(product, vectors[1], shift_error, eps))
    result = _with_bias(node, product, result, eps)
    interpreter.layers[node] = Layer(rows, dtype, result, row_base, axis)
    interpreter.states[node.output] = result
    return True


def _with_bias(node: Node, product: Product, state: AbstractValue, eps: float) -> AbstractValue:
    if product.bias is None or node.input(product.bias) is None:
        return state
    bias = product.beta * constant(node, product.bias).astype(np.float64)
    bias = bias.reshape((1,) * (product.axis + 1 - bias.ndim) + bias.shape)
    return state.shifted(bias, LOOSE * eps * np.abs(bias))


def _varies_beside(state: AbstractValue, axis: int) -> bool:
    """Return True if a transform varies along other axes than ``axis``, and not along that."""
    arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
    sizes = np.broadcast_shapes(*(array.shape for array in aligned(*arrays)))
    return any(size > 1 for size in sizes) and (len(sizes) <= axis or sizes[axis] == 1)


def _beside(interpreter: Interpreter, node: Node, state: AbstractValue, product: Product) -> bool:
    """Set the state of ``W (g x + h) + c`` for g and h of other axes than the matrix: ``g W x + h W 1 + c``."""
    axis, plain = product.axis, replace(product, bias=None)
    _linear(interpreter, node, AbstractValue(state.base), state.base, plain)
    made = interpreter.states[node.output]
    sums = (product.alpha * product.view().astype(np.float64)).sum(axis=(2, 3)).reshape((1,) * axis + (-1,))
    gain, shift, gain_error, shift_error, own, own_error, sums = aligned(
        state.affine.gain, state.affine.shift, state.gain_error, state.shift_error,
        made.affine.gain, made.gain_error, sums,
    )  # fmt: skip
    error = np.abs(gain) * own_error + np.abs(own) * gain_error
    eps = interpreter.eps(node.inputs[product.weight])
    if interpreter.is_exact(node.inputs[0 if product.weight else 1]):
        shift_error = np.zeros_like(shift_error)
    offset, moved = shift * sums, shift_error * np.abs(sums) + LOOSE * eps * np.abs(shift) * np.abs(sums)
    result = AbstractValue(made.base, Affine.of(*np.broadcast_arrays(gain * own, offset)), error, moved)
    if product.bias is not None and node.input(product.bias) is not None:
        bias = product.beta * constant(node, product.bias).astype(np.float64)
        bias = bias.reshape((1,) * (axis + 1 - bias.ndim) + bias.shape)
        result = result.shifted(bias, LOOSE * eps * np.abs(bias))
    interpreter.layers[node] = replace(interpreter.layers[node], output=result)
    interpreter.states[node.output] = result
    return True


def _divided(state: AbstractValue, axis: int, size: int) -> tuple[tuple[Array, Array], AbstractValue, Array]:
    """Return a transform that varies elsewhere too as one per channel of ``axis``, the rest, and the gain's error.

    Gain and shift are those of the first position, so that a fold which only moved such leaves the same rest.
    """
    plain = (np.ones(size), np.zeros(size)), state, np.zeros(())
    arrays = state.affine.gain, state.affine.shift, state.gain_error, state.shift_error
    gain, shift, error, moved = np.broadcast_arrays(*aligned(*arrays))
    if gain.ndim <= axis or gain.shape[axis] != size:
        return plain
    first = tuple(slice(None) if k == axis else slice(1) for k in range(gain.ndim))
    own, offset = gain[first], shift[first]
    if not (own != 0).all() or not (np.isfinite(own) & np.isfinite(offset)).all():
        return plain
    affine = Affine.of(gain / own, (shift - offset) / own)
    rest = AbstractValue(state.base, affine, error / np.abs(own), moved / np.abs(own))
    return (own.reshape(-1), offset.reshape(-1)), rest, error[first].reshape((1,) * axis + (size,))


def _reading(product: Product, gain: Array) -> NDArray[np.bool_]:
    """Return which outputs depend on x, laid out like a transform: not those whose weights are zero where x varies."""
    stored = product.view()
    groups, outer, width, _ = stored.shape
    varies = gain.reshape(groups, 1, width) != 0
    found: NDArray[np.bool_] = ((stored[..., 0] != 0) & varies).any(axis=2)  # mostly the first of all taps decides
    for group, row in np.argwhere(~found):
        found[group, row] = (stored[group, row].any(axis=1) & varies[group, 0]).any()
    return found.reshape((1,) * product.axis + (groups * outer,))


def _rows(
    product: Product, gain: Array, gain_error: Array, rounded_to: Any, axis: int, summed: bool = False
) -> Numbers:
    """Return ``W g`` per output channel on ``axis``, with error bars where the weights are rounded to a type.

    Weights that a model computes as sums (``summed``) are as exact as the largest of their row.
    """
    stored = product.view()
    groups, outer, width, taps = stored.shape
    rows = (*(1,) * axis, groups * outer)
    gain, gain_error = (vector.reshape(groups, 1, width, 1) for vector in (gain, gain_error))
    values = (stored * (product.alpha * gain)).reshape(*rows, width * taps)
    if rounded_to is None:
        return Numbers(values, np.zeros((*rows, 1)))
    bars = ulp(stored, rounded_to)
    if summed:
        bars[...] = bars.max(axis=(2, 3), keepdims=True)
    bars *= LOOSE * abs(product.alpha) * np.abs(gain)
    if gain_error.any():
        bars += np.abs(stored, dtype=np.float64) * gain_error
    return Numbers(values, bars.reshape(*rows, width * taps))


def _forwarded_shift(product: Product, shift: Array, error: Array, eps: float) -> tuple[Array, Array]:
    """Return ``W h``, laid out like a transform, and a bound of its error.

    The errors of the channels of ``h`` are independent, and so is the rounding of each weight: their sum is as large as
    the root of their squares. A bound by their sizes would grow by ``sum |W|`` from layer to layer, and hide faults of
    biases behind a few wide layers. What a tool loses that adds up in the storage type is in proportion to the sum.
    """
    weight = product.alpha * product.view().astype(np.float64)
    groups, _, width, _ = weight.shape
    taps, squares = weight.sum(axis=-1), np.square(weight).sum(axis=-1)

    def through(weights: Array, vector: Array) -> Array:
        sums = np.einsum("goi,gi->go", weights, vector.reshape(groups, width))
        return np.asarray(sums.reshape((1,) * product.axis + (-1,)))

    moved = through(taps, shift)
    spread = np.sqrt(through(np.square(taps), np.square(error)))
    return moved, spread + LOOSE * eps * (np.abs(moved) + np.sqrt(through(squares, np.square(shift))))


def _along(array: Array, axis: int, size: int) -> Array:
    """Return a transform's array as one vector along ``axis``: its largest entry where it varies elsewhere."""
    if array.ndim > axis and array.size == array.shape[axis]:
        return np.broadcast_to(array.reshape(-1), (size,))
    return np.full(size, array.max(initial=0.0))


SEMANTICS = {
    **dict.fromkeys(("Conv", "ConvTranspose"), conv),
    **dict.fromkeys(("Gemm", "Linear"), gemm),
    **dict.fromkeys(("MatMul", "Einsum"), matmul),
}
