"""Linear operators with constant weights: they absorb any map on their output, and on their input what
their padding and their missing biases allow. The algebra is :func:`bnfold.affine.fold_linear`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import IDENTITY, Affine, conv_transpose_view, conv_view, fold_linear, gemm_view
from bnfold.graph import Node, Value
from bnfold.ops import (
    DONE,
    Flood,
    Rewrite,
    Rule,
    Spread,
    constant,
    constant_shape,
    not_constant,
    off_axis,
    singular,
)
from bnfold.reasons import Kept

Gauge = Callable[[Value], Affine]


def _spread_conv(node: Node, flood: Flood) -> Spread:
    """Conv and ConvTranspose: channels on axis 1 of input and output."""
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape, group = constant_shape(node, 1), node.attr("group", 1)
    if len(shape) < 3 or group < 1:
        return Kept("unknown-shape", f"the weight of {node.op} {node.name!r} has shape {list(shape)}")
    transposed = node.op == "ConvTranspose"
    outputs = shape[1] * group if transposed else shape[0]
    inputs = shape[0] if transposed else shape[1] * group
    after = flood.given(node.output)
    if after is not None and (refusal := off_axis(after, node, 1, outputs)):
        return refusal
    before = flood.given(node.inputs[0])
    if before is not None:
        if refusal := off_axis(before, node, 1, inputs) or singular(before, node):
            return refusal
        if before.has_shift and (transposed or _pads(node)):
            return Kept("padding", f"{node.op} {node.name!r} sees zeros beyond the border")
    return DONE


def _pads(node: Node) -> bool:
    """True unless the operator provably reads nothing beyond its input."""
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "VALID":
        return False
    if mode == "NOTSET":
        return any(node.attr("pads", ()))
    shape = constant_shape(node, 1)
    strides = node.attr("strides", [1] * (len(shape) - 2))
    dilations = node.attr("dilations", [1] * (len(shape) - 2))
    source = node.inputs[0].shape if node.inputs[0] else None
    for axis, (kernel, stride, dilation) in enumerate(zip(shape[2:], strides, dilations, strict=True), start=2):
        size = source[axis] if source and len(source) == len(shape) else None
        reach = dilation * (kernel - 1) + 1
        if reach > 1 and not isinstance(size, int):
            return True
        if isinstance(size, int) and (-(-size // stride) - 1) * stride + reach > size:
            return True
    return False


def _rewrite_conv(node: Node, gauge: Gauge) -> Rewrite:
    weight, group = constant(node, 1), node.attr("group", 1)
    view = conv_transpose_view if node.op == "ConvTranspose" else conv_view
    seen = view(weight, group)
    outputs, inputs = seen.shape[0] * seen.shape[1], seen.shape[0] * seen.shape[2]
    assert node.inputs[0] is not None
    before, after = gauge(node.inputs[0]), gauge(node.output)
    bias = constant(node, 2) if node.input(2) else None
    vectors = None if before.is_identity else before.vectors(1, inputs)
    new, offset = fold_linear(seen, bias, vectors, after.vectors(1, outputs) or _impossible())
    constants = {1: _unviewed(node, new, weight.shape)}
    if not after.is_identity or before.has_shift:
        if bias is not None or offset.any():
            constants[2] = offset
    return Rewrite(constants)


def _unviewed(node: Node, new: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return (np.swapaxes(new, 1, 2) if node.op == "ConvTranspose" else new).reshape(shape)


def _conv_rows(node: Node, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    view = conv_transpose_view if node.op == "ConvTranspose" else conv_view
    seen = view(weight, node.attr("group", 1))
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


def _spread_gemm(node: Node, flood: Flood) -> Spread:
    """``Y = alpha * A B + beta * C`` with constant B and C; channels on axis 1."""
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape = constant_shape(node, 1)
    if len(shape) != 2:
        return Kept("unknown-shape", f"the weight of Gemm {node.name!r} has shape {list(shape)}")
    inner, outer = shape[::-1] if node.attr("transB", 0) else shape
    after, before = flood.given(node.output), flood.given(node.inputs[0])
    if after is not None and (refusal := off_axis(after, node, 1, outer)):
        return refusal
    if before is not None:
        if node.attr("transA", 0):
            return Kept("channel-axis", f"Gemm {node.name!r} transposes its input")
        if refusal := off_axis(before, node, 1, inner) or singular(before, node):
            return refusal
    return DONE


def _rewrite_gemm(node: Node, gauge: Gauge) -> Rewrite:
    """Alpha stays; beta goes into C, whose shape may grow from ``(M, 1)`` to ``(M, N)``."""
    transposed = bool(node.attr("transB", 0))
    weight = gemm_view(constant(node, 1), transposed)
    assert node.inputs[0] is not None
    before, after = gauge(node.inputs[0]), gauge(node.output)
    gain, shift = after.vectors(1, weight.shape[1]) or _impossible()
    vectors = None if before.is_identity else before.vectors(1, weight.shape[2])
    new, offset = fold_linear(weight, None, vectors, (gain, np.zeros_like(shift)))
    offset = node.attr("alpha", 1.0) * offset + shift
    matrix = new[0, :, :, 0]
    rewrite = Rewrite({1: matrix if transposed else matrix.T})
    if after.is_identity and not before.has_shift:
        return rewrite
    if node.input(2) is not None:
        beta = node.attr("beta", 1.0)
        rewrite.constants[2] = np.asarray(gain * beta * constant(node, 2).astype(np.float64) + offset)
        if beta != 1.0:
            rewrite.attributes["beta"] = 1.0
    elif offset.any():
        rewrite.constants[2] = offset
        if node.attr("beta", 1.0) != 1.0:
            rewrite.attributes["beta"] = 1.0
    return rewrite


def _matrix_rows(node: Node, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return gemm_view(weight, bool(node.attr("transB", 0)))[0, :, :, 0]


def _spread_matmul(node: Node, flood: Flood) -> Spread:
    """``Y = X B`` with a constant matrix B: channels on the last axes; there is no bias to take a shift."""
    source = node.inputs[0]
    if refusal := not_constant(node, 1):
        return refusal
    shape = constant_shape(node, 1)
    rank = source.rank if source else None
    if source is None or rank is None or rank < 2 or len(shape) != 2:
        return Kept("unknown-shape", f"MatMul {node.name!r} needs a matrix and an input of known rank")
    after, before = flood.given(node.output), flood.given(source)
    if before is not None:
        if refusal := off_axis(before, node, rank - 1, shape[0]) or singular(before, node):
            return refusal
    if after is not None and (refusal := off_axis(after, node, rank - 1, shape[1])):
        return refusal
    carried = _carried_shift(node, flood, before, rank)
    if after is None:
        return DONE if carried.is_identity else [[(node.output, carried)]]
    if after.agrees(after.gain_only().after(carried)):
        return DONE
    return Kept("no-bias", f"MatMul {node.name!r} has no bias")


def _carried_shift(node: Node, flood: Flood, before: Affine | None, rank: int) -> Affine:
    """What a shift of the input adds to the output: ``(h / g) W``, with the weights as they stand now."""
    if before is None or not before.has_shift:
        return IDENTITY
    weight = constant(node, 1).astype(np.float64)
    assert node.inputs[0] is not None
    scale_in, _ = flood.gauge(node.inputs[0]).vectors(rank - 1, weight.shape[0]) or _impossible()
    scale_out, _ = flood.gauge(node.output).vectors(rank - 1, weight.shape[1]) or _impossible()
    gain, shift = before.vectors(rank - 1, weight.shape[0]) or _impossible()
    return Affine.along(rank - 1, 1.0, ((shift / gain / scale_in) @ weight) * scale_out)


def _rewrite_matmul(node: Node, gauge: Gauge) -> Rewrite:
    weight = gemm_view(constant(node, 1), transposed=False)
    source = node.inputs[0]
    assert source is not None and source.rank is not None
    gain, _ = gauge(node.output).vectors(source.rank - 1, weight.shape[1]) or _impossible()
    gain_in, _ = gauge(source).vectors(source.rank - 1, weight.shape[2]) or _impossible()
    none = np.zeros_like
    new, _ = fold_linear(weight, None, (gain_in, none(gain_in)), (gain, none(gain)))
    return Rewrite({1: new[0, :, :, 0].T})


def _impossible() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    raise AssertionError("a map that the plan allowed does not lie on the channel axis")


RULES = {
    "Conv": Rule(
        "any map, whatever the pads, groups, strides and dilations",
        "any gain but 0; a shift only without padding",
        _spread_conv,
        _rewrite_conv,
        _conv_rows,
    ),
    "ConvTranspose": Rule(
        "any map, whatever the pads, groups and output padding",
        "any gain but 0; a shift never",
        _spread_conv,
        _rewrite_conv,
        _conv_rows,
    ),
    "Gemm": Rule(
        "any map; beta goes into C, alpha stays",
        "any gain but 0 and any shift, without transA",
        _spread_gemm,
        _rewrite_gemm,
        _matrix_rows,
    ),
    "MatMul": Rule(
        "any gain; a shift needs a constant Add behind, else the BatchNorm becomes one",
        "any gain but 0; a shift goes on to the output",
        _spread_matmul,
        _rewrite_matmul,
        _matrix_rows,
    ),
}
