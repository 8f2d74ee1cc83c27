"""Bring a folded weight into the range of its type by powers of two, which the layers around undo without a rounding.

Where ``W' = g W`` overflows, or loses bits to underflow, its layer may make ``2^k y`` in place of ``y`` per channel:
the planner moves that scale on as it moves any other, through Relu, pooling and sums into the layers behind. Or it may
read ``2^k x``, and the layers in front make that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.product_views import MatrixView
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import range_of
from bnfold.planner.activation_sizes import LINEAR

Array = NDArray[np.float64]

ROOM = 2.0
"""How many times a balanced weight's largest entry may grow until it overflows."""


MOST_BALANCED = 4
"""Values that one fold may put scales on: the layer behind may be short of range too, and pass a part of it on."""


@dataclass(frozen=True, eq=False)
class Balance:
    """A scale of powers of two that a value is to carry, so that the weights of a layer beside it fit their type."""

    value: Value
    scale: Affine


def too_large(largest: Array, dtype: np.dtype[np.generic]) -> Array:
    """Return the exponents that bring the largest entries of channels into the range of a type: 0 or negative."""
    with np.errstate(divide="ignore"):
        over = np.ceil(np.log2(largest * ROOM / range_of(dtype)[1]))
    return -np.maximum(np.where(np.isfinite(over), over, 0.0), 0.0)


def too_small(largest: Array, lossy: NDArray[np.bool_], enough: float) -> Array:
    """Return the exponents that make the largest entry of each lossy channel large ``enough``: 0 or positive."""
    with np.errstate(divide="ignore"):
        under = np.ceil(np.log2(enough / largest))
    return np.where(lossy & np.isfinite(under), np.maximum(under, 0.0), 0.0)


def balances(node: Node, outputs: Array | None, inputs: Array | None) -> list[Balance]:
    """Return what may be tried for a linear layer: exponents of its output channels, or of its input channels."""
    if node.op not in LINEAR or not node.live_outputs:
        return []
    matrix = None if node.op in ("Conv", "ConvTranspose") else MatrixView.of(node)
    if matrix is None and node.op not in ("Conv", "ConvTranspose"):
        return []
    axis, source = (1, node.inputs[0]) if matrix is None else (matrix.axis, node.inputs[matrix.data])
    found = []
    if outputs is not None and outputs.any():
        found.append(Balance(node.output, _scale(outputs, axis)))
    if inputs is not None and inputs.any() and source is not None:
        found.append(Balance(source, _scale(-inputs, axis)))
    return found


def _scale(exponents: Array, axis: int) -> Affine:
    return Affine.along(axis, np.exp2(exponents), np.zeros_like(exponents))
