"""What an operator's attributes and constant operands say: padding, sides of products, shapes."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.numerics.affine import is_float
from bnfold.rules.elementwise import split_operands
from bnfold.rules.rule import constant_shape


def floats(node: Node, index: int) -> tuple[int, ...] | None:
    """Return the shape of a constant input of floats; None if it is none."""
    value = node.input(index)
    if value is None or value.dtype is None or not node.graph.constants.is_constant(value):
        return None
    return constant_shape(node, index) if is_float(value.dtype) else None


def keeps_shape(node: Node, index: int) -> bool:
    """Return True unless the constant operand may have more axes than the data."""
    data, held = node.inputs[1 - index], node.inputs[index]
    assert held is not None
    return data is not None and data.rank is not None and (held.rank or 0) <= data.rank


def conv_padding(node: Node, shape: tuple[int, ...]) -> list[int] | None:
    """Return begins and ends of the padding; None where they depend on a size that is not known."""
    mode, axes = node.attr("auto_pad", "NOTSET"), range(len(shape) - 2)
    if mode == "NOTSET":
        pads = list(node.attr("pads", [0 for _ in (*axes, *axes)]))
        return pads if len(pads) == 2 * len(axes) else None
    if mode == "VALID":
        return [0 for _ in (*axes, *axes)]
    source = node.inputs[0].shape if node.inputs[0] is not None else None
    if node.op == "ConvTranspose" or source is None or len(source) != len(shape):
        return None
    strides, dilations = node.attr("strides", [1] * len(axes)), node.attr("dilations", [1] * len(axes))
    begin, end = [], []
    for k in axes:
        size = source[k + 2]
        if not isinstance(size, int):
            return None
        total = max((-(-size // strides[k]) - 1) * strides[k] + dilations[k] * (shape[k + 2] - 1) + 1 - size, 0)
        less = total // 2 if mode == "SAME_UPPER" else total - total // 2
        begin.append(less)
        end.append(total - less)
    return begin + end


def matrix_side(node: Node) -> tuple[int, int, int, int] | None:
    """Return the index of a MatMul's constant matrix, the axis of its rows in y, their length and number.

    None if neither side is a matrix, or the data has fewer axes than it.
    """
    operands = split_operands(node)
    if operands is None:
        return None
    data, index = operands
    source, shape = node.inputs[data], floats(node, index)
    rank = None if source is None else source.rank
    if rank is None or rank < 2 or shape is None or not 2 <= len(shape) <= rank or any(n != 1 for n in shape[:-2]):
        return None
    inner, outer = shape[-2:] if data == 0 else shape[:-3:-1]
    return index, rank - 1 if data == 0 else rank - 2, inner, outer
