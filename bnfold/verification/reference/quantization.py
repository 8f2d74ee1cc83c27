"""QuantizeLinear and DequantizeLinear in float64, of every opset."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference.op_run import OpRun

from bnfold.numerics.dequantize import dequantized, spread_scale

Array = NDArray[Any]
Attr = Any


class DequantizeLinear(OpRun):
    """``(q - zero point) * scale``, of every opset."""

    def _run(
        self, q: Array, scale: Array, zero: Array | None = None, axis: Attr = 1, block_size: Attr = 0, **_: Attr
    ) -> tuple[Array]:
        return (dequantized(q, scale, zero, 1 if axis is None else axis, block_size or 0),)


class QuantizeLinear(OpRun):
    """``saturate(round(x / scale) + zero point)``, of every opset, to 8 and 16 bit integers."""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: Attr = 1, block_size: Attr = 0, **attrs: Attr
    ) -> tuple[Array]:
        kind = attrs.get("output_dtype") or TensorProto.UINT8
        dtype = zero.dtype if zero is not None else helper.tensor_dtype_to_np_dtype(kind)
        if dtype.kind not in "iu":
            raise NotImplementedError("QuantizeLinear to this type")
        axis, block = 1 if axis is None else axis, block_size or 0
        steps = self._rounded(x / spread_scale(scale, x.shape, axis, block))
        offset = 0 if zero is None else spread_scale(zero, x.shape, axis, block)
        limits = np.iinfo(dtype)
        return (np.clip(steps + offset, limits.min, limits.max).astype(dtype),)

    def _rounded(self, steps: Array) -> Array:
        return np.asarray(np.rint(steps))


def flipping(names: Collection[str], reach: float) -> type[QuantizeLinear]:
    """Return a QuantizeLinear that rounds the other way what lies within ``reach`` steps of where rounding turns.

    It does so for the outputs of these ``names``: activations; weights are the same in each run.
    """

    def rounded(self: QuantizeLinear, steps: Array) -> Array:
        nearest = np.asarray(np.rint(steps))
        if self.onnx_node.output[0] not in names:
            return nearest
        apart = steps - nearest
        return np.where(np.abs(apart) >= 0.5 - reach, nearest + np.sign(apart), nearest)

    return type("QuantizeLinear", (QuantizeLinear,), {"_rounded": rounded})
