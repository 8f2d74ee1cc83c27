"""The arithmetic of DequantizeLinear, in float64, and of QuantizeLinear, as runtimes compute it."""

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


def quantized(
    values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, dtype: Any, axis: int, block: int
) -> NDArray[Any]:
    """``values / scale`` rounded to nearest even, plus the zero point, saturated to the integer type ``dtype``.

    Raises ValueError, IndexError.
    """
    offset = 0.0 if zero is None else spread_scale(zero, values.shape, axis, block)
    made = np.clip(np.rint(quotients(values, scale, axis, block)) + offset, *integer_limits(dtype))
    if np.isnan(made).any():
        raise ValueError("a scale of zero, or a value that is no number")
    return np.asarray(made.astype(dtype))


def quotients(values: NDArray[Any], scale: NDArray[Any], axis: int, block: int) -> NDArray[np.float64]:
    """``values / scale`` as runtimes have it, rounded to float32: near the middle of two integers that decides."""
    wide = np.float64 if values.dtype == np.float64 else np.float32
    spread = spread_scale(scale, values.shape, axis, block)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.divide(values.astype(wide), spread.astype(wide)), np.float64)


def integer_limits(dtype: Any) -> tuple[int, int]:
    """Return the smallest and the largest integer of a type, also of those of 4 bits and less."""
    import ml_dtypes  # which knows numpy's types too

    info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)


def spread_scale(part: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> NDArray[Any]:
    """A scale or zero point in float64, so that it broadcasts against quantized data of ``shape``."""
    part = part.astype(np.float64)
    if block:
        return np.repeat(part, min(block, shape[axis]), axis).take(range(shape[axis]), axis)
    if part.size == 1:
        return part.reshape(())
    return part.reshape([-1 if k == axis % len(shape) else 1 for k in range(len(shape))])
