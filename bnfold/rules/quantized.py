"""Constant weights stored as integers: a gain per output channel goes into the scales, the integers stay.

``W = (q - zero) * scale``. A negative gain flips the integers, ``q' = 2 zero - q``, unless one would leave its
type (int8 has a -128 but no 128).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable, Rewrite

Array = NDArray[np.float64]


def source_of(node: Node, index: int) -> Node | None:
    """The DequantizeLinear that makes the weight of ``node`` (its input ``index``), if one does."""
    weight = node.input(index)
    producer = None if weight is None else weight.producer
    return producer if producer is not None and producer.op == "DequantizeLinear" else None


def refusal(node: Node, index: int, axis: int | None) -> Refusal | None:
    """Return why a gain on ``axis`` of the weight can't go into its scales; None if it can, or if there are none."""
    dequantize = source_of(node, index)
    if dequantize is None:
        return None
    where = f"{node.label}, whose weights are integers"
    if axis is None:
        return Refusal("unsupported-dtype", f"{where} with scales that can't take a scale on this axis")
    scale, quantized = dequantize.input(1), dequantize.input(0)
    if dequantize.attr("block_size", 0) or scale is None or quantized is None or scale.shape is None:
        return Refusal("unsupported-dtype", f"{where} in blocks")
    made = dequantize.output
    if len(made.consumers) > 1 or made.is_output or made.captured:
        return Refusal("consumers", f"{where}, shares them with another node")
    if quantized.dtype is None or quantized.dtype.name not in ("int8", "uint8", "int16", "uint16"):
        return Refusal("unsupported-dtype", f"{where} of type {quantized.dtype}")
    count = int(np.prod([n for n in scale.shape if isinstance(n, int)]))
    rank = quantized.rank
    if rank is None or (count > 1 and dequantize.attr("axis", 1) % rank != axis):
        return Refusal("unsupported-dtype", f"{where} with scales along another axis")
    if count == 1 and dequantize.opset < 13:
        return Refusal("unsupported-dtype", f"{where} with one scale for all, before opset 13")
    return None


def rescaled(node: Node, index: int, axis: int, gain: Array) -> Rewrite:
    """New scales, and flipped integers where the gain is negative. Raises NotRepresentable."""
    dequantize = source_of(node, index)
    assert dequantize is not None
    scale = constant(dequantize, 1).astype(np.float64)
    rewrite = Rewrite()
    vector = np.broadcast_to(scale.reshape(-1), gain.shape) * np.abs(gain)
    if np.unique(np.abs(gain)).size == 1:
        rewrite.constants[dequantize, 1] = scale * np.abs(gain).flat[0]
    else:
        rewrite.constants[dequantize, 1] = vector
        if scale.size == 1:
            rewrite.attributes[dequantize, "axis"] = axis
            if dequantize.input(2) is not None:
                rewrite.constants[dequantize, 2] = np.broadcast_to(constant(dequantize, 2).reshape(-1), gain.shape)
    if (gain < 0).any():
        rewrite.constants[dequantize, 0] = _flipped(dequantize, axis, gain)
    return rewrite


def _flipped(dequantize: Node, axis: int, gain: Array) -> Array:
    quantized = constant(dequantize, 0)
    limits = np.iinfo(quantized.dtype)
    integers = quantized.astype(np.float64)
    shape = [1] * integers.ndim
    shape[axis] = -1
    zero: Any = 0.0
    if dequantize.input(2) is not None:
        zero = constant(dequantize, 2).astype(np.float64).reshape(shape)
    flipped = np.where((gain < 0).reshape(shape), 2 * zero - integers, integers)
    if flipped.min(initial=0) < limits.min or flipped.max(initial=0) > limits.max:
        raise NotRepresentable(
            Refusal("overflow", f"the {quantized.dtype} weights of {dequantize.name!r} can't all be negated")
        )
    return np.asarray(flipped)
