"""Constant operands of binary operators: aligned with the data, and read as an affine transform of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    constant,
    split_operands,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    RuleContext,
    not_constant,
)

Array = NDArray[np.float64]


def aligned_constant(node: Node, data: int, index: int) -> Array | Refusal:
    """The constant operand in float64, aligned with every axis of the data operand.

    A constant merely as long as there are channels is not per channel: the broadcast is resolved against
    the data's true rank and shape, and one that would enlarge the result is refused.
    """
    if refusal := not_constant(node, index):
        return refusal
    source = node.inputs[data]
    assert source is not None
    values = constant(node, index).astype(np.float64)
    shape = source.shape
    if shape is None:
        if values.ndim == 0:
            return values
        return Refusal("unknown-shape", f"the rank of {source.name!r} is not known")
    if node.opset < 7:
        return _old_broadcast(node, values, shape)
    if values.ndim > len(shape):
        return Refusal("channel-axis", f"the constant of {node.label} has more axes than its input")
    values = values.reshape((1,) * (len(shape) - values.ndim) + values.shape)
    return _fits(node, values, shape) or values


def aligned_constants(node: Node, data: Sequence[Value]) -> dict[int, Array] | Refusal:
    """The constant operands of a node of any number, by index, each aligned with every axis of the output.

    One of the values has as many axes as the output, and the constant enlarges it along none.
    """
    rank = node.output.rank
    whole = [
        index for index, value in enumerate(node.inputs) if value is not None and value in data and value.rank == rank
    ]
    found: dict[int, Array] = {}
    for index, value in enumerate(node.inputs):
        if value is None or value in data:
            continue
        aligned: Array | Refusal = Refusal("unknown-shape", f"the rank of {node.output.name!r} is not known")
        for one in whole:
            aligned = aligned_constant(node, one, index)
            if not isinstance(aligned, Refusal):
                break
        if isinstance(aligned, Refusal):
            return aligned
        found[index] = aligned
    return found


def stretched(node: Node, data: list[Value], transforms: list[Affine]) -> Refusal | None:
    """A transform passes a sum only if no operand is stretched along an axis on which the transform varies."""
    varying = dict.fromkeys(
        (axis, size) for transform in transforms for axis, size in enumerate(transform.gain.shape) if size > 1
    )
    for axis, size in varying:
        for value in (node.output, *data):
            shape = value.shape
            if shape is None or len(shape) != node.output.rank or shape[axis] != size:
                return Refusal("unknown-shape", f"{value.name!r} may be broadcast at {node.label}")
    return None


def _old_broadcast(node: Node, values: Array, shape: tuple[int | str | None, ...]) -> Array | Refusal:
    """Opsets 1 to 6: shapes are equal, or ``broadcast=1`` puts the second operand on ``axis``."""
    rank = len(shape)
    axis = rank - values.ndim
    if node.attr("broadcast", 0):
        axis = node.attr("axis", axis)
        axis += rank if axis < 0 else 0
    behind = rank - axis - values.ndim
    if axis < 0 or behind < 0 or (not node.attr("broadcast", 0) and values.ndim != rank):
        return Refusal("unknown-shape", f"the operands of {node.label} don't broadcast")
    values = values.reshape((1,) * axis + values.shape + (1,) * behind)
    return _fits(node, values, shape) or values


def outgrows(node: Node, aligned: Array, context: RuleContext) -> Refusal | None:
    """Before opset 7 a constant can't grow along an axis of length 1: its broadcast is fixed by its shape."""
    if node.opset >= 7:
        return None
    for value in (*node.inputs, node.output):
        transform = context.proposed(value)
        for axis, size in enumerate(() if transform is None else transform.gain.shape):
            if size > 1 and aligned.shape[axis : axis + 1] != (size,):
                return Refusal("channel-axis", f"the constant of {node.label} can't grow in opset {node.opset}")
    return None


def _fits(node: Node, values: Array, shape: tuple[int | str | None, ...]) -> Refusal | None:
    for size, dim in zip(values.shape, shape, strict=True):
        if size != 1 and size != dim:
            code = "channel-axis" if isinstance(dim, int) else "unknown-shape"
            return Refusal(code, f"the constant of {node.label} may enlarge its input")
    return None


def as_affine(node: Node) -> tuple[Value, Affine] | Refusal | None:
    """The node as a transform of its data operand: Add, Sub, Mul or Div with a constant. None for anything else."""
    operands = split_operands(node) if node.op in ("Add", "Sub", "Mul", "Div") else None
    if operands is None or (node.op == "Div" and operands[0] == 1):
        return None
    k = aligned_constant(node, *operands)
    if isinstance(k, Refusal):
        return k
    source = node.inputs[operands[0]]
    assert source is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        if node.op in ("Mul", "Div"):
            return source, Affine.of(k if node.op == "Mul" else 1.0 / k, 0.0)
    if node.op == "Add":
        return source, Affine.of(1.0, k)
    return source, Affine.of(1.0, -k) if operands[0] == 0 else Affine.of(-1.0, k)


def with_shape_of(values: Array, shape: tuple[int, ...]) -> Array:
    """``values`` without leading axes of length 1 that the old constant did not have."""
    if values.size == int(np.prod(shape)):
        return values.reshape(shape)
    while values.ndim > len(shape) and values.shape[0] == 1:
        values = values[0]
    return values
