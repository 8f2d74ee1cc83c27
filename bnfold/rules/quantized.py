"""Constant weights that are integers: a gain per output channel goes into the scales, the integers stay.

``W = (q - zero) * scale``. A negative gain flips the integers, ``q' = 2 zero - q``, unless one would leave its
type (int8 has a -128 but no 128). Where the integers are quantized floats (QuantizeLinear in front of
DequantizeLinear, as networks are exported that were trained with quantization in mind), the gain goes into the floats
and into both scales, so that the quotient, and with it every integer, stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.dequantize import integer_limits, quotients, spread_scale
from bnfold.numerics.rounding import rounded, smallest_normal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable, Rewrite

Array = NDArray[np.float64]

AXIS_SINCE = 13
"""The opset in which both operators got an axis."""

CLEAR = 0.499
"""How far from its integer a quotient may lie: nearer to the middle, runtimes may not agree."""


def source_of(node: Node, index: int) -> Node | None:
    """The DequantizeLinear that makes the weight of ``node`` (its input ``index``), if one does."""
    return _made_by(node.input(index), "DequantizeLinear")


def _made_by(value: Value | None, op: str) -> Node | None:
    producer = None if value is None else value.producer
    return producer if producer is not None and producer.op == op else None


def refusal(node: Node, index: int, axis: int | None) -> Refusal | None:
    """Return why a gain on ``axis`` of the weight can't go into its scales; None if it can, or if there are none."""
    dequantize = source_of(node, index)
    if dequantize is None:
        return None
    where = f"{node.label}, whose weights are integers"
    if axis is None:
        return Refusal("unsupported-dtype", f"{where} with scales that can't take a scale on this axis")
    if (integers := dequantize.input(0)) is None or integers.dtype is None or integers.rank is None:
        return Refusal("unsupported-dtype", f"{where} of unknown type")
    if integers.dtype.name not in ("int8", "uint8", "int16", "uint16", "int4", "uint4"):
        return Refusal("unsupported-dtype", f"{where} of type {integers.dtype}")
    for step in _steps(dequantize):
        made = step.output
        if len(made.consumers) > 1 or made.is_output or made.captured:
            return Refusal("consumers", f"{where}, shares them with another node")
        scale, block = step.input(1), step.attr("block_size", 0)
        if scale is None or scale.shape is None:
            return Refusal("unsupported-dtype", f"{where} with scales of unknown shape")
        along = step.attr("axis", 1) % integers.rank == axis
        if block and along:
            return Refusal("unsupported-dtype", f"{where} in blocks of channels")
        count = int(np.prod([n for n in scale.shape if isinstance(n, int)]))
        if not block and count > 1 and not along:
            return Refusal("unsupported-dtype", f"{where} with scales along another axis")
        if count == 1 and step.opset < AXIS_SINCE:
            return Refusal("unsupported-dtype", f"{where} with one scale for all, before opset {AXIS_SINCE}")
    return None


def _steps(dequantize: Node) -> list[Node]:
    """The nodes that make a weight: a DequantizeLinear, and the QuantizeLinear in front of it if there is one."""
    quantize = _made_by(dequantize.input(0), "QuantizeLinear")
    return [dequantize] if quantize is None else [quantize, dequantize]


def rescaled(node: Node, index: int, axis: int, gain: Array) -> Rewrite:
    """New scales, and flipped integers where the gain is negative. Raises NotRepresentable."""
    dequantize = source_of(node, index)
    assert dequantize is not None
    integers, steps = constant(dequantize, 0), _steps(dequantize)
    limits, quantizes = integer_limits(integers.dtype), len(steps) > 1
    wanted = _flipped(dequantize, integers, axis, gain)
    stretch = np.abs(gain)
    if quantizes:  # nothing can be divided by a scale of zero, but any integer may be the zero point
        wanted = np.where(_along(gain, axis, integers.ndim) == 0, _zero_points(dequantize, integers.shape), wanted)
        stretch = np.where(stretch == 0, 1.0, stretch)
    rewrite = Rewrite()
    for step in steps:
        scale = constant(step, 1).astype(np.float64)
        new = _stretched(step, scale, axis, integers.ndim, stretch)
        _refuse_lost_bits(step, new)
        rewrite.constants[step, 1] = new
        if scale.size == 1 and new.size > 1 and not step.attr("block_size", 0):
            rewrite.attributes[step, "axis"] = axis
            if step.input(2) is not None:
                rewrite.constants[step, 2] = np.broadcast_to(constant(step, 2).reshape(-1), gain.shape)
        if quantizes and step is steps[0]:
            rewrite.constants[step, 0] = _floats(step, new, wanted, limits, axis, gain)
    if not quantizes and (gain < 0).any():
        rewrite.constants[dequantize, 0] = wanted
    return rewrite


def _along(gain: Array, axis: int, rank: int) -> Array:
    return gain.reshape([-1 if k == axis else 1 for k in range(rank)])


def _stretched(step: Node, scale: Array, axis: int, rank: int, stretch: Array) -> Array:
    """The new scales: one for all, one per channel, or those of the blocks."""
    if step.attr("block_size", 0):
        return np.asarray(scale * _along(stretch, axis, rank))
    if np.unique(stretch).size == 1:
        return np.asarray(scale * stretch.flat[0])
    return np.asarray(np.broadcast_to(scale.reshape(-1), stretch.shape) * stretch)


def _refuse_lost_bits(step: Node, scale: Array) -> None:
    """Refuse a scale that its type holds with fewer bits than others. Raises NotRepresentable."""
    held = step.input(1)
    if held is not None and held.dtype is not None:
        least = np.abs(scale[scale != 0]).min(initial=np.inf)
        if least < smallest_normal(held.dtype):
            where = f"the {held.dtype} scales of {step.name!r}"
            raise NotRepresentable(Refusal("overflow", f"{where} would lose bits: {least:.3g}"))


def _zero_points(step: Node, shape: tuple[int, ...]) -> Any:
    """The zero points in float64, so that they broadcast against the integers."""
    if step.input(2) is None:
        return 0.0
    return spread_scale(constant(step, 2), shape, step.attr("axis", 1), step.attr("block_size", 0))


def _flipped(dequantize: Node, integers: NDArray[Any], axis: int, gain: Array) -> Array:
    """The integers, negated about their zero point where the gain is negative. Raises NotRepresentable."""
    limits = integer_limits(integers.dtype)
    held = integers.astype(np.float64)
    zeros = _zero_points(dequantize, integers.shape)
    flipped = np.where(_along(gain, axis, held.ndim) < 0, 2 * zeros - held, held)
    if flipped.min(initial=0) < limits[0] or flipped.max(initial=0) > limits[1]:
        raise NotRepresentable(
            Refusal("overflow", f"the {integers.dtype} weights of {dequantize.name!r} can't all be negated")
        )
    return np.asarray(flipped)


def _floats(quantize: Node, scale: Array, wanted: Array, limits: tuple[int, int], axis: int, gain: Array) -> Array:
    """The floats times the gain; the middle of its step where one would become another integer, or nearly so."""
    value, held = quantize.input(0), quantize.input(1)
    assert value is not None and held is not None and value.dtype is not None and held.dtype is not None
    old = constant(quantize, 0).astype(np.float64)
    block = quantize.attr("block_size", 0)
    along = quantize.attr("axis", 1) if block else axis
    stored, new = rounded(scale, held.dtype), rounded(old * _along(gain, axis, old.ndim), value.dtype)
    zeros, quotient = _zero_points(quantize, old.shape), quotients(new, stored, along, block)
    nearest = np.rint(quotient)
    moved = (np.clip(nearest + zeros, *limits) != wanted) | (np.abs(quotient - nearest) > CLEAR)
    return np.where(moved, (wanted - zeros) * spread_scale(stored, old.shape, along, block), new.astype(np.float64))
