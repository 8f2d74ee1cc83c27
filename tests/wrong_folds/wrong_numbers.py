"""Faults of the stored numbers: too few bits, lost entries, NaN, and what must not have been touched at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from tests.wrong_folds.arithmetic import bias_name, places
from tests.wrong_folds.edits import attribute, copied, named, nodes_of, put, turned, values
from tests.wrong_folds.registry import Wrong, fault

Tensor = NDArray[Any]
Change = Callable[[Tensor], Tensor]


def _weights(original: ModelProto, correct: ModelProto) -> list[str]:
    """The folded weights of the correct fold."""
    return [_weight(correct, place.layer) for place in places(original, correct)]


def _weight(model: ModelProto, layer: str) -> str:
    made = named(model, layer)
    assert made is not None
    return made.input[1]


def _unfolded(original: ModelProto, correct: ModelProto) -> list[str]:
    """The weights that no BatchNorm touches."""
    linear = nodes_of(correct, "Conv", "ConvTranspose", "Gemm", "MatMul")
    return [made.input[1] for made in linear if made.input[1] not in _weights(original, correct)]


def _changed(correct: ModelProto, names: list[str], change: Change) -> Wrong:
    """The first of these tensors that the change alters, altered."""
    for name in names:
        old = values(correct, name)
        wrong = copied(correct)
        put(wrong, name, change(old))
        if values(wrong, name).tobytes() != old.tobytes():
            return wrong
    return None


def _bits(data: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The stored bits changed as integers."""
    integers = data.view(f"u{data.dtype.itemsize}")
    return change(integers).astype(integers.dtype).view(data.dtype)


def _at(index: int, change: Callable[[Any], Any]) -> Change:
    """One entry changed; entries are ranked from the largest."""

    def changed(data: Tensor) -> Tensor:
        flat = data.ravel().copy()
        place = np.argsort(-np.abs(flat.astype(np.float64)), kind="stable")[index]
        flat[place] = change(flat[place])
        return flat.reshape(data.shape)

    return changed


@fault(benign_in=tuple((f"{name}/float16", "is float16") for name in ("residual", "classifier", "mixture", "kept")))
def rounded_to_half(original: ModelProto, correct: ModelProto) -> Wrong:
    """One layer's folded weights rounded to float16 on the way."""
    return _changed(correct, turned("half", _weights(original, correct)), lambda data: data.astype(np.float16))


@fault()
def rounded_to_bfloat16(original: ModelProto, correct: ModelProto) -> Wrong:
    """One layer's folded weights cut to bfloat16 on the way."""

    def cut(data: Tensor) -> Tensor:
        return _bits(data.astype(np.float32), lambda bits: bits & 0xFFFF0000)

    return _changed(correct, turned("bfloat", _weights(original, correct)), cut)


@fault()
def rounded_to_int8(original: ModelProto, correct: ModelProto) -> Wrong:
    """One layer's folded weights rounded to 8 bits."""

    def eight(data: Tensor) -> Tensor:
        step = np.abs(data.astype(np.float64)).max() / 127
        return np.round(data / step) * step

    return _changed(correct, turned("int8", _weights(original, correct)), eight)


@fault()
def last_bits_cleared(original: ModelProto, correct: ModelProto) -> Wrong:
    """The last three bits of one layer's folded weights cleared."""
    names = turned("cleared", _weights(original, correct))
    return _changed(correct, names, lambda data: _bits(data, lambda bits: bits & ~np.asarray(7, bits.dtype)))


@fault()
def unfolded_last_bits(original: ModelProto, correct: ModelProto) -> Wrong:
    """The last bit of every weight of a layer without BatchNorm flipped."""
    return _changed(correct, _unfolded(original, correct), lambda data: _bits(data, lambda bits: bits ^ 1))


@fault()
def unfolded_last_bit(original: ModelProto, correct: ModelProto) -> Wrong:
    """The last bit of the first weight of a layer without BatchNorm flipped."""

    def flip(data: Tensor) -> Tensor:
        first = np.arange(data.size).reshape(data.shape) == 0
        return _bits(data, lambda bits: bits ^ first)

    return _changed(correct, _unfolded(original, correct), flip)


@fault()
def unfolded_scaled(original: ModelProto, correct: ModelProto) -> Wrong:
    """The weights of a layer without BatchNorm 0.5 % too large."""
    return _changed(correct, _unfolded(original, correct), lambda data: data * 1.005)


@fault()
def sign_bit(original: ModelProto, correct: ModelProto) -> Wrong:
    """The sign of one middling folded weight wrong."""
    return _changed(correct, turned("sign", _weights(original, correct)), _at(40, lambda one: -one))


@fault()
def one_weight_lost(original: ModelProto, correct: ModelProto) -> Wrong:
    """One middling weight of the largest folded layer zero."""
    largest = max(_weights(original, correct), key=lambda name: values(correct, name).size)
    return _changed(correct, [largest], _at(values(correct, largest).size // 3, lambda one: one * 0))


@fault()
def weight_zeros(original: ModelProto, correct: ModelProto) -> Wrong:
    """A folded weight replaced by zeros."""
    return _changed(correct, turned("zeros", _weights(original, correct)), lambda data: data * 0)


@fault()
def bias_zeros(original: ModelProto, correct: ModelProto) -> Wrong:
    """A folded bias replaced by zeros."""
    return _changed(correct, turned("bias zeros", _biases(original, correct)), lambda data: data * 0)


@fault()
def bias_rolled(original: ModelProto, correct: ModelProto) -> Wrong:
    """A folded bias moved by one channel."""
    return _changed(correct, turned("rolled", _biases(original, correct)), lambda data: np.roll(data, 1))


@fault()
def unfolded_bias_rolled(original: ModelProto, correct: ModelProto) -> Wrong:
    """The bias of a layer without BatchNorm moved by one channel."""
    linear = [made for made in nodes_of(correct, "Conv", "Gemm") if len(made.input) > 2]
    names = [made.input[2] for made in linear if made.input[2] not in _biases(original, correct)]
    return _changed(correct, names, lambda data: np.roll(data, 1))


def _biases(original: ModelProto, correct: ModelProto) -> list[str]:
    return [bias_name(correct, place.layer) for place in places(original, correct)]


@fault()
def channels_swapped(original: ModelProto, correct: ModelProto) -> Wrong:
    """The weights of two channels of a folded Conv swapped, their biases not."""
    convs = [made.input[1] for made in nodes_of(correct, "Conv") if made.input[1] in _weights(original, correct)]
    return _changed(correct, turned("channels", convs), lambda data: data[[1, 0, *range(2, len(data))]])


def _kernels(original: ModelProto, correct: ModelProto) -> list[str]:
    folded = _weights(original, correct)
    return [name for name in folded if values(correct, name).ndim == 4 and values(correct, name).shape[-1] > 1]


@fault()
def kernel_flipped(original: ModelProto, correct: ModelProto) -> Wrong:
    """The kernels of a folded layer mirrored, as a true convolution would have them."""
    return _changed(correct, turned("flipped", _kernels(original, correct)), lambda data: data[:, :, ::-1, ::-1])


@fault()
def kernel_transposed(original: ModelProto, correct: ModelProto) -> Wrong:
    """Rows and columns of a folded layer's kernels swapped."""
    return _changed(correct, turned("transposed", _kernels(original, correct)), lambda data: np.swapaxes(data, 2, 3))


@fault()
def square_matrix_transposed(original: ModelProto, correct: ModelProto) -> Wrong:
    """A square dense weight stored transposed."""
    names = [name for name in _weights(original, correct) if values(correct, name).ndim == 2]
    square = [name for name in names if len({*values(correct, name).shape}) == 1]
    return _changed(correct, square, lambda data: data.T)


@fault()
def groups_swapped(original: ModelProto, correct: ModelProto) -> Wrong:
    """The weights of the groups of a grouped layer in another order."""
    grouped = [made for made in nodes_of(correct, "Conv", "ConvTranspose") if attribute(made, "group", 1) > 1]
    for made in turned("groups", grouped):
        size = len(values(correct, made.input[1])) // attribute(made, "group")
        return _changed(correct, [made.input[1]], lambda data, size=size: np.roll(data, size, axis=0))
    return None


# --- NaN and infinity


@fault()
def nan_in_living_weight(original: ModelProto, correct: ModelProto) -> Wrong:
    """One NaN in a folded weight."""
    return _changed(correct, turned("nan", _weights(original, correct)), _at(0, lambda one: one * np.nan))


@fault()
def infinite_bias(original: ModelProto, correct: ModelProto) -> Wrong:
    """One entry of a folded bias infinite."""
    return _changed(correct, turned("infinite", _biases(original, correct)), _at(0, lambda one: abs(one) * np.inf))
