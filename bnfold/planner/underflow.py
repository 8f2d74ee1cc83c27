"""Whether a type can hold a folded weight: no overflow, and no underflow that costs more than a rounding.

Below its normal range a type rounds in equal steps, so that small weights lose bits, down to all of them. What that
costs shows at the output. For each output channel the error that rounding the weights makes there is compared with one
rounding of the output itself, whose size the BatchNorm holds: a channel that weight decay has left with its bias alone
loses nothing by weights that are gone. A channel that is all too small to show beside the others is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.product_views import MatrixView
from bnfold.numerics.linear import Scaled
from bnfold.numerics.rounding import rounded, smallest_normal, ulp
from bnfold.planner.activation_sizes import LINEAR, ActivationSizes
from bnfold.planner.balancing import too_large, too_small
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable, Transforms

Array = NDArray[np.float64]

DEAD = 2.0**-100
"""A channel whose weights are this much smaller than those of its layer is dead in any type."""

Outputs = Callable[[], "tuple[Array, Array] | None"]
"""Asks for the deviation and the size of each channel of a layer's output, after the fold."""


def output_sizes(node: Node, current: Transforms, sizes: ActivationSizes) -> tuple[Array, Array] | None:
    """Return deviation and size (that of the mean added) per output channel of a linear layer, after the fold.

    None where its channels don't lie on one axis.
    """
    if node.op not in LINEAR:
        return None
    matrix = None if node.op in ("Conv", "ConvTranspose") else MatrixView.of(node)
    axis = 1 if matrix is None else matrix.axis
    size, transform = sizes.of(node.output), current(node.output)
    channels = max(size.gain.size, transform.gain.size)
    before, after = size.vectors(axis, channels), transform.vectors(axis, channels)
    if before is None or after is None:
        return None
    deviation = np.abs(after[0]) * before[0]
    return deviation, deviation + np.abs(after[0] * before[1] + after[1])


def judge(where: str, weight: Scaled, outputs: Outputs | None, largest: Array) -> None:
    """Raise NotRepresentable for a weight that its type can't hold; ``largest`` are its largest entries per channel.

    Without ``outputs`` one that may lose bits is refused.
    """
    dtype = weight.dtype
    if not np.isfinite(rounded(largest, dtype)).all():
        exponents = too_large(largest.reshape(-1), dtype)
        raise NotRepresentable(Refusal("overflow", f"{where} would not be finite in {dtype}"), exponents)
    # A row of n entries is moved by at most sqrt(n) half steps of the equal ones: nothing beside a large entry.
    entries = prod(weight.shape) / max(largest.size, 1)
    enough = float(smallest_normal(dtype) * np.sqrt(entries))
    small = (largest > DEAD * largest.max(initial=0.0)) & (largest < enough)
    if not small.any():
        return
    if outputs is None:
        raise NotRepresentable(Refusal("overflow", f"{where} may lose its bits to underflow in {dtype}"))
    moved, size = (found.reshape(-1) for found in weight.losses())
    share = np.divide(moved, size, out=np.zeros_like(moved), where=size > 0)
    lossy = _lossy(share, small.reshape(-1), outputs(), dtype)
    if lossy.any():
        exponents = too_small(largest.reshape(-1), lossy, enough)
        raise NotRepresentable(Refusal("overflow", f"{where} would lose its bits to underflow in {dtype}"), exponents)


def _lossy(
    share: Array, small: NDArray[np.bool_], outputs: tuple[Array, Array] | None, dtype: Any
) -> NDArray[np.bool_]:
    """Return which channels of small weights lose more than one rounding, and are not dead.

    ``share`` is the part of each row that rounding its weights takes.
    """
    unit = float(ulp(np.ones(()), dtype)) / 2
    deviation, size = (np.ones_like(share), np.ones_like(share)) if outputs is None else outputs
    if size.size not in (1, share.size):
        deviation, size = np.ones_like(share), np.ones_like(share)
    dead = size <= unit * size.max(initial=0.0)
    rounding = unit * np.maximum(size, smallest_normal(dtype))
    return np.asarray(small & ~dead & (share * deviation > rounding))
