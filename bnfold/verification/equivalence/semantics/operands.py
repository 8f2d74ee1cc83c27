"""What the semantics ask of an operator's constant operands."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant_shape
from bnfold.numerics.rounding import is_float


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
