"""Float64 operators in place of those that onnx's reference implementation gets wrong or is too slow at.

BatchNormalization is bnfold's own (:mod:`bnfold.numerics.batchnorm`), for every opset: onnx's is wrong for opset 9.
Convolutions are one matrix product per group of kernel taps, pools one pass per tap, resizing one matrix per axis.
Source: the ONNX operator pages.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_cast import cast_to
from onnx.reference.ops.op_loop import Loop as Reference

from bnfold.numerics.batchnorm import ONNX_EPSILON, inference, training_step
from bnfold.numerics.batchnorm import BatchNorm as Statistics
from bnfold.verification.reference.indexing import GatherElements
from bnfold.verification.reference.normalization import LRN, GroupNormalization, Hardmax, LogSoftmax, Softmax
from bnfold.verification.reference.quantization import DequantizeLinear, QuantizeLinear
from bnfold.verification.reference.recurrent import GRU, LSTM, RNN, sigmoid
from bnfold.verification.reference.resize import Resize, Upsample
from bnfold.verification.reference.sampling import GridSample, RoiAlign
from bnfold.verification.reference.windows import AveragePool, Conv, ConvTranspose, MaxPool

Array = NDArray[Any]
Attr = Any

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class BatchNormalization(OpRun):
    """All opsets: inference, and training where ``training_mode``, ``is_test`` or the outputs ask for it."""

    def _run(
        self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: Attr = None, **attrs: Attr
    ) -> tuple[Array, ...]:
        layer = Statistics(scale, bias, mean, var, ONNX_EPSILON if epsilon is None else float(epsilon))
        version, outputs = self.run_params["opsets"].get("", 1), [name for name in self.onnx_node.output if name]
        if version >= 14:
            training = bool(attrs.get("training_mode"))
        else:
            training = len(outputs) > 1 or (version < 7 and not getattr(self, "is_test", 0))
        if not training:
            return (inference(x, layer, 1 if x.ndim > 1 else 0),)
        momentum = attrs.get("momentum")
        y, after = training_step(x, layer, momentum=0.9 if momentum is None else float(momentum))
        return (y, after.mean, after.var)[: max(1, len(outputs))]


class Cast(OpRun):
    """Floats of any width stay float64: what a narrower type loses is an error of the run, not of the mathematics."""

    def _run(self, x: Array, to: Attr = None, **_: Attr) -> tuple[Array]:
        return (x.astype(np.float64) if to in FLOAT_TYPES else cast_to(x, to, saturate=True),)


class CastLike(OpRun):
    """As :class:`Cast`."""

    def _run(self, x: Array, like: Array, **_: Attr) -> tuple[Array]:
        return (x.astype(like.dtype),)


class Erf(OpRun):
    """The error function, by the standard library."""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x),)


def _erf(x: Array) -> Array:
    return np.fromiter(map(erf, x.reshape(-1).tolist()), np.float64, x.size).reshape(x.shape)


class Gelu(OpRun):
    """``x * Phi(x)``, exact or by tanh."""

    def _run(self, x: Array, approximate: Attr = "none") -> tuple[Array]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + _erf(x / np.sqrt(2.0))),)


class HardSwish(OpRun):
    """``x * max(0, min(1, x / 6 + 0.5))``."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x * np.clip(x / 6 + 0.5, 0, 1),)


class Loop(Reference):
    """A loop without a condition runs on; onnx's reference takes none for false."""

    def _run(  # type: ignore[override]
        self, most: Array | None, condition: Array | None, *args: Any, **attrs: Any
    ) -> tuple[Any, ...]:
        run: Callable[..., tuple[Any, ...]] = super()._run
        return run(most, np.array(True) if condition is None else condition, *args, **attrs)


class Mish(OpRun):
    """``x * tanh(ln(1 + e^x))``."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x * np.tanh(np.logaddexp(0, x)),)


class Pad(OpRun):
    """Entries around a tensor, or (negative) fewer of them, of every opset."""

    def _run(
        self, x: Array, pads: Attr = None, value: Attr = None, axes: Attr = None, mode: Attr = None, **attrs: Attr
    ) -> tuple[Array]:
        given = np.asarray(attrs.get("paddings") if pads is None else pads).reshape(2, -1).T.tolist()
        width, inside = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
        for axis, (less, more) in zip(range(x.ndim) if axes is None else axes.tolist(), given, strict=True):
            width[axis] = max(0, less), max(0, more)
            inside[axis] = slice(max(0, -less), x.shape[axis] - max(0, -more))
        x, mode = x[tuple(inside)], mode or "constant"
        filled = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(x, width, mode=mode, **filled).astype(x.dtype),)


class Sigmoid(OpRun):
    """``1 / (1 + e^-x)``, without overflow."""

    def _run(self, x: Array) -> tuple[Array]:
        return (sigmoid(x),)


OPERATORS: list[type[OpRun]] = [
    BatchNormalization, Conv, ConvTranspose, MaxPool, AveragePool, Cast, CastLike, Erf, Gelu, HardSwish, Mish, Sigmoid,
    Resize, DequantizeLinear, QuantizeLinear, GatherElements, GroupNormalization, Hardmax, LogSoftmax, LRN, Softmax,
    GRU, LSTM, RNN, Upsample, GridSample, RoiAlign, Loop, Pad,
]  # fmt: skip
