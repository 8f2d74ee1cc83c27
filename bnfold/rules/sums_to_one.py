"""Factors whose entries sum to 1 along an axis: a Softmax, behind operators that move its entries.

A weighted mean ``sum of a[i] v[i]`` with such weights commutes with any affine transform of ``v``: the offset comes out
as it went in. A runtime's weights sum to ``1 + d`` instead, and an offset ``h`` that goes through the product comes out
wrong by ``h d``. The same ``d`` is around it: what a BatchNorm reads there, ``y``, is wrong
by ``y d``, and with ``z = g y + h`` it is ``|h d| <= |z d| + |g y d|``, so the fold adds at most what the original
errs already, and ``d`` of its own result. ``d`` is the mean of the weights' relative errors, and not their sum: for
onnxruntime's and torch's Softmax in float32 (200 rows of normal numbers of deviation 5) at most 2.2 units in the last
place for 196 entries, 4.8 for 1,024, 10 for 4,096, 64 for 65,536; in float16, summed in float32, 0.4 for any number.

Hence the weights' type must be no coarser than the product's: a Softmax in float16 says nothing of one in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.numerics.rounding import is_float, ulp
from bnfold.rules.identity import is_training
from bnfold.rules.layout import MOST_ENTRIES, Unmovable, reshaped

FARTHEST = 16
"""Operators up to which a Softmax is looked for."""

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def sums_to_one(value: Value, axis: int, output: Value) -> bool:
    """Return True if the entries of ``value`` along ``axis`` sum to 1, as far as the type of ``output`` tells.

    ``output`` is the product. Of no entries the sum is 0: the axis must have some, or be an axis of the output too.
    """
    shape, floats = value.shape, output.dtype
    if shape is None or floats is None or not is_float(floats):
        return False
    size = shape[axis]
    if not (size > 0 if isinstance(size, int) else size is not None and size in (output.shape or ())):
        return False
    for _ in range(FARTHEST):
        node = value.producer
        if value.dtype is None or not is_float(value.dtype) or _coarser(value.dtype, floats):
            return False
        if node is None or node.outputs[0] is not value or node.inputs[0] is None or value.rank is None:
            return False
        if node.op == "Softmax":
            return _is_softmax_axis(node, axis, value.rank)
        before = _axis_before(node, axis)
        if before is None:
            return False
        value, axis = node.inputs[0], before
    return False


def _coarser(dtype: Any, other: Any) -> bool:
    one = np.ones(())
    return bool(ulp(one, dtype) > ulp(one, other))


def _is_softmax_axis(node: Node, axis: int, rank: int) -> bool:
    """Before opset 13 a Softmax is one over all axes from its own on: along the last axis only if it is that."""
    own = int(node.attr("axis", -1 if node.opset >= 13 else 1))
    return axis == own % rank and (node.opset >= 13 or axis == rank - 1)


def _axis_before(node: Node, axis: int) -> int | None:
    """Return the axis of a node's input whose entries the node has along ``axis``; None for other operators."""
    source, target = node.inputs[0], node.output
    if node.op in ("Identity", "Cast", "CastLike") or (node.op == "Dropout" and not is_training(node)):
        return axis
    if source is None or source.rank is None:
        return None
    if node.op == "Transpose":
        return int(node.attr("perm", list(range(source.rank))[::-1])[axis])
    return _viewed_axis(source, target, axis) if node.op in VIEWS else None


def _viewed_axis(source: Value, target: Value, axis: int) -> int | None:
    """Return the axis of ``source`` that is ``axis`` in another shape: its entries, and no others, lie along it."""
    if source.shape is None or target.shape is None:
        return None
    size = target.shape[axis]
    if not isinstance(size, int) or not 1 < size <= MOST_ENTRIES:
        return None
    places = np.arange(size, dtype=np.float64).reshape((size,) + (1,) * (len(target.shape) - axis - 1))
    try:
        found = reshaped(places.reshape((1,) * axis + places.shape), target.shape, source.shape)
    except Unmovable:
        return None
    varying = [index for index, length in enumerate(found.shape) if length > 1]
    return varying[0] if len(varying) == 1 and np.array_equal(found.reshape(-1), places.reshape(-1)) else None
