"""The arithmetic of DequantizeLinear, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dequantized(
    quantized: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, axis: int, block: int
) -> NDArray[Any]:
    """``(q - zero point) * scale``, per tensor, per axis or per block; in float64. Raises ValueError, IndexError.

    The reference implementation knows this operator from opset 19 on only.
    """
    offset = 0.0 if zero is None else spread_scale(zero, quantized.shape, axis, block)
    return np.asarray((quantized.astype(np.float64) - offset) * spread_scale(scale, quantized.shape, axis, block))


def spread_scale(part: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> NDArray[Any]:
    """A scale or zero point in float64, so that it broadcasts against quantized data of ``shape``."""
    part = part.astype(np.float64)
    if block:
        return np.repeat(part, min(block, shape[axis]), axis).take(range(shape[axis]), axis)
    if part.size == 1:
        return part.reshape(())
    return part.reshape([-1 if k == axis % len(shape) else 1 for k in range(len(shape))])
