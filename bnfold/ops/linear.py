"""Linear operators with constant weights: they absorb any map on their output, and on their input what
their padding and their missing biases allow. The algebra is :func:`bnfold.affine.fold_linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    quantized,
    singular,
)
from bnfold.ops.elementwise import split_operands
from bnfold.reasons import Kept

Array = NDArray[np.float64]
Gauge = Callable[[Value], Affine]


# --- Conv and ConvTranspose: channels on axis 1 of input and output


def _spread_conv(node: Node, flood: Flood) -> Spread:
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape, group = constant_shape(node, 1), node.attr("group", 1)
    if len(shape) < 3 or group < 1:
        return Kept("unknown-shape", f"the weight of {node.op} {node.name!r} has shape {list(shape)}")
    transposed = node.op == "ConvTranspose"
    outputs = shape[1] * group if transposed else shape[0]
    inputs = shape[0] if transposed else shape[1] * group
    if outputs % group or inputs % group or 0 in shape:
        return Kept("unknown-shape", f"{node.op} {node.name!r} has {group} groups, which don't divide its channels")
    if node.input(2) is not None and constant_shape(node, 2) != (outputs,):
        return Kept("unknown-shape", f"the bias of {node.op} {node.name!r} is not one number per channel")
    before = flood.given(node.inputs[0])
    if before is not None and before.has_shift and (transposed or _pads(node)):
        return Kept("padding", f"{node.op} {node.name!r} sees zeros beyond the border")
    return _absorb(node, flood, Ends(node.inputs[0], 1, inputs, 1, outputs), _conv_axis(node))


def _conv_axis(node: Node) -> int | None:
    """The axis of the weight that counts the output channels, if one does so alone."""
    if node.op == "Conv":
        return 0
    return 1 if node.attr("group", 1) == 1 else None


def _pads(node: Node) -> bool:
    """True unless the operator provably reads nothing beyond its input."""
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "VALID":
        return False
    if mode == "NOTSET":
        return any(node.attr("pads", ()))
    shape = constant_shape(node, 1)
    ones = [1] * (len(shape) - 2)
    strides, dilations = node.attr("strides", ones), node.attr("dilations", ones)
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
    weight = constant(node, 1)
    seen = _conv_view(node)(weight, node.attr("group", 1))
    bias = constant(node, 2) if node.input(2) else None
    ends = Ends(node.inputs[0], 1, seen.shape[0] * seen.shape[2], 1, seen.shape[0] * seen.shape[1])
    before, after = ends.vectors(node, gauge)
    new, offset = fold_linear(seen, bias, before, after)
    stored = (np.swapaxes(new, 1, 2) if node.op == "ConvTranspose" else new).reshape(weight.shape)
    rewrite = _new_weight(node, 1, stored, before, after, _conv_axis(node))
    if _moves_bias(before, after) and (bias is not None or offset.any()):
        rewrite.constants[node, 2] = offset
    return rewrite


def _conv_view(node: Node) -> Callable[[NDArray[np.float64], int], NDArray[np.float64]]:
    return conv_transpose_view if node.op == "ConvTranspose" else conv_view


def _conv_rows(node: Node, weight: Array) -> Array:
    seen = _conv_view(node)(weight, node.attr("group", 1))
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


# --- Gemm: Y = alpha A B + beta C, with constant B and C; channels on axis 1.
# --- Linear, as torch has it: Y = A B' + C for A of any rank; channels on the last axis.


def _spread_gemm(node: Node, flood: Flood) -> Spread:
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape = constant_shape(node, 1)
    if len(shape) != 2 or 0 in shape:
        return Kept("unknown-shape", f"the weight of {node.op} {node.name!r} has shape {list(shape)}")
    transposed, axis = _gemm_layout(node)
    inner, outer = shape[::-1] if transposed else shape
    if axis is None:
        return Kept("unknown-shape", f"the rank of the input of {node.op} {node.name!r} is not known")
    if node.attr("transA", 0) and flood.given(node.inputs[0]) is not None:
        return Kept("channel-axis", f"Gemm {node.name!r} transposes its input")
    terms = constant_shape(node, 2) if node.input(2) is not None else ()
    if len(terms) > 2 or terms[-1:] not in ((), (1,), (outer,)):
        return Kept("unknown-shape", f"C of Gemm {node.name!r} has shape {list(terms)}")
    return _absorb(node, flood, Ends(node.inputs[0], axis, inner, axis, outer), 0 if transposed else 1)


def _gemm_layout(node: Node) -> tuple[bool, int | None]:
    """Whether the weight is stored as rows per output, and the axis of the channels."""
    if node.op == "Gemm":
        return bool(node.attr("transB", 0)), 1
    rank = None if node.inputs[0] is None else node.inputs[0].rank
    return True, rank - 1 if rank else None


def _rewrite_gemm(node: Node, gauge: Gauge) -> Rewrite:
    """The factor alpha stays; beta goes into C, whose shape may grow from ``(M, 1)`` to ``(M, N)``."""
    transposed, axis = _gemm_layout(node)
    assert axis is not None
    seen = gemm_view(constant(node, 1), transposed)
    before, after = Ends(node.inputs[0], axis, seen.shape[2], axis, seen.shape[1]).vectors(node, gauge)
    gain, shift = after
    new, offset = fold_linear(seen, None, before, (gain, np.zeros_like(shift)))
    offset = node.attr("alpha", 1.0) * offset + shift
    stored = new[0, :, :, 0] if transposed else new[0, :, :, 0].T
    rewrite = _new_weight(node, 1, stored, before, after, 0 if transposed else 1)
    if not _moves_bias(before, after):
        return rewrite
    beta = node.attr("beta", 1.0)
    if node.input(2) is not None:
        rewrite.constants[node, 2] = np.asarray(gain * beta * constant(node, 2).astype(np.float64) + offset)
    elif offset.any():
        rewrite.constants[node, 2] = offset
    if (node, 2) in rewrite.constants and beta != 1.0:
        rewrite.attributes[node, "beta"] = 1.0
    return rewrite


def _gemm_rows(node: Node, weight: Array) -> Array:
    return weight if _gemm_layout(node)[0] else weight.T


# --- MatMul with a constant matrix on either side; there is no bias to take a shift


def _matrix(node: Node) -> tuple[int, int, Ends] | Kept:
    """Which operand is the data, which the matrix, and where the channels lie."""
    operands = split_operands(node)
    if operands is None:
        return Kept("dynamic-weights", f"MatMul {node.name!r} multiplies two computed values")
    data, index = operands
    if refusal := not_constant(node, index):
        return refusal
    source, shape = node.inputs[data], constant_shape(node, index)
    rank = None if source is None else source.rank
    if rank is None or rank < 2 or not 2 <= len(shape) <= rank or any(n != 1 for n in shape[:-2]) or 0 in shape:
        return Kept("unknown-shape", f"MatMul {node.name!r} needs one constant matrix and an input of known rank")
    axis = rank - 1 if data == 0 else rank - 2
    inner, outer = shape[-2:] if data == 0 else shape[:-3:-1]
    return data, index, Ends(source, axis, inner, axis, outer)


def _spread_matmul(node: Node, flood: Flood) -> Spread:
    found = _matrix(node)
    if isinstance(found, Kept):
        return found
    data, index, ends = found
    source = node.inputs[data]
    assert source is not None
    ways = _absorb(node, flood, ends, len(constant_shape(node, index)) - 1 if data == 0 else None, index)
    if isinstance(ways, Kept):
        return ways
    before, after = flood.given(source), flood.given(node.output)
    carried = _carried_shift(node, index, ends, flood, before)
    if after is None:
        return DONE if carried.is_identity else [[(node.output, carried)]]
    if after.agrees(after.gain_only().after(carried)):
        return DONE
    return Kept("no-bias", f"MatMul {node.name!r} has no bias")


def _carried_shift(node: Node, index: int, ends: Ends, flood: Flood, before: Affine | None) -> Affine:
    """What a shift of the input adds to the output: ``W (h / g)``, with the weights as they stand now."""
    if before is None or not before.has_shift:
        return IDENTITY
    (scale_in, _), (scale_out, _) = ends.vectors(node, flood.gauge)
    pushed = before.vectors(ends.axis_in, ends.size_in)
    assert pushed is not None
    rows = _matmul_view(node, index)[0, :, :, 0].astype(np.float64)
    return Affine.along(ends.axis_out, 1.0, (rows @ (pushed[1] / pushed[0] / scale_in)) * scale_out)


def _matmul_view(node: Node, index: int) -> NDArray[np.float64]:
    weight = constant(node, index)
    return gemm_view(weight.reshape(weight.shape[-2:]), transposed=index == 0)


def _rewrite_matmul(node: Node, gauge: Gauge) -> Rewrite:
    found = _matrix(node)
    assert not isinstance(found, Kept)
    data, index, ends = found
    (gain_in, _), (gain, _) = before, after = ends.vectors(node, gauge)
    none = np.zeros_like
    new, _ = fold_linear(_matmul_view(node, index), None, (gain_in, none(gain_in)), (gain, none(gain)))
    matrix = new[0, :, :, 0] if index == 0 else new[0, :, :, 0].T
    shape = constant_shape(node, index)
    return _new_weight(node, index, matrix.reshape(shape), before, after, len(shape) - 1 if data == 0 else None)


def _matmul_rows(node: Node, weight: Array) -> Array:
    operands = split_operands(node)
    matrix = weight.reshape(weight.shape[-2:])
    return matrix if operands is not None and operands[1] == 0 else matrix.T


# --- what they share


@dataclass(frozen=True)
class Ends:
    """Where the channels of a linear operator lie: axis and number, of its input and of its output."""

    source: Value | None
    axis_in: int
    size_in: int
    axis_out: int
    size_out: int

    def vectors(self, node: Node, gauge: Gauge) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Gains and shifts of input and output as the plan settled them."""
        assert self.source is not None
        before = gauge(self.source).vectors(self.axis_in, self.size_in)
        after = gauge(node.output).vectors(self.axis_out, self.size_out)
        assert before is not None, "a map that the plan allowed does not lie on the channel axis"
        assert after is not None, "a map that the plan allowed does not lie on the channel axis"
        return before, after


def _absorb(node: Node, flood: Flood, ends: Ends, weight_axis: int | None, index: int = 1) -> Spread:
    """Maps per channel on either side are absorbed; of the input's, only those that can be undone."""
    after, before = flood.given(node.output), flood.given(ends.source)
    if after is not None:
        if refusal := off_axis(after, node, ends.axis_out, ends.size_out):
            return refusal
        if not after.gain_only().is_identity and (refusal := quantized.refusal(node, index, weight_axis)):
            return refusal
    if before is not None:
        if refusal := off_axis(before, node, ends.axis_in, ends.size_in) or singular(before, node):
            return refusal
        if not before.gain_only().is_identity and (refusal := quantized.refusal(node, index, None)):
            return refusal
    return DONE


def _moves_bias(before: tuple[Array, Array], after: tuple[Array, Array]) -> bool:
    return bool(before[1].any() or after[1].any() or (after[0] != 1).any())


def _new_weight(
    node: Node,
    index: int,
    stored: Array,
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    weight_axis: int | None,
) -> Rewrite:
    """The new weight, unless no gain changes it; integers get new scales instead."""
    if (before[0] == 1).all() and (after[0] == 1).all():
        return Rewrite()
    if quantized.source_of(node, index) is None:
        return Rewrite({(node, index): stored})
    assert weight_axis is not None
    return quantized.rescaled(node, index, weight_axis, after[0])


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
        _gemm_rows,
    ),
    "Linear": Rule(
        "any map on the last axis (torch's own operator)",
        "any gain but 0 and any shift, on the last axis",
        _spread_gemm,
        _rewrite_gemm,
        _gemm_rows,
    ),
    "MatMul": Rule(
        "any gain; a shift needs a constant Add behind, else the BatchNorm becomes one",
        "any gain but 0; a shift goes on to the output",
        _spread_matmul,
        _rewrite_matmul,
        _matmul_rows,
    ),
}
