"""Arithmetic, activations, copies."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, fx

from bnfold.frontends.torch.aten.call import Call, OnnxView, Operand, Translation, plain


def _binary(op: str, *, swapped: bool = False) -> Translation:
    """Operators of two values, in the order that ONNX has them or the other one."""

    def view(call: Call) -> OnnxView | None:
        if call["alpha"] not in (None, 1) or call["rounding_mode"] is not None:
            return None
        operands = [Operand("self"), Operand("other")]
        return OnnxView(op, operands[::-1] if swapped else operands)

    return view


def _clip(low: str, high: str) -> Translation:
    return lambda call: OnnxView("Clip", [Operand("self"), Operand(low), Operand(high)])


def _relu6(_: Call) -> OnnxView:
    return OnnxView("Clip", [Operand("self"), np.zeros((), np.float32), np.full((), 6.0, np.float32)])


def _leaky_relu(call: Call) -> OnnxView:
    return OnnxView("LeakyRelu", [Operand("self")], {"alpha": call["negative_slope"]})


def _prelu(call: Call) -> OnnxView | None:
    """The slope belongs to axis 1; ONNX aligns it with the last axis."""
    shape, rank = call.shape("weight"), call.rank("self")
    if shape is None or rank is None or rank < 2 or len(shape) != 1:
        return None
    return OnnxView("PRelu", [Operand("self"), Operand("weight", shape=(int(shape[0]), *(1 for _ in range(rank - 2))))])


def _dropout(call: Call) -> OnnxView | None:
    return None if call["train"] and call["p"] else OnnxView("Identity", [Operand("input")])


def _copies(name: str = "self") -> Translation:
    """Operators that give the same values, perhaps elsewhere or in another type."""

    def view(call: Call) -> OnnxView | None:
        before, after = call[name], call.node.meta.get("val")
        held = before.meta.get("val") if isinstance(before, fx.Node) else None
        if not isinstance(held, Tensor) or not isinstance(after, Tensor):
            return None
        if held.dtype == after.dtype:
            return OnnxView("Identity", [Operand(name)])
        return OnnxView("Cast", [Operand(name)], {"to": _ONNX_TYPES.get(after.dtype, 0)})

    return view


def _softmax(call: Call) -> OnnxView | None:
    return OnnxView("Softmax", [Operand("self")], {"axis": call["dim"]}) if type(call["dim"]) is int else None


def _power(exponent: float | None = None) -> Translation:
    """A power of one number, which the call names or is known for."""

    def view(call: Call) -> OnnxView | None:
        if exponent is None and type(call["exponent"]) not in (int, float):
            return None
        number = Operand("exponent") if exponent is None else np.asarray(exponent, np.float32)
        return OnnxView("Pow", [Operand("self"), number])

    return view


_ONNX_TYPES = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}


TABLE: dict[str, Translation] = {
    **{f"{name}.{kind}": _binary(op) for name, op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div"))
       for kind in ("Tensor", "Scalar")},
    **{f"rsub.{kind}": _binary("Sub", swapped=True) for kind in ("Tensor", "Scalar")},
    **dict.fromkeys(("maximum", "max.other"), _binary("Max")),
    **dict.fromkeys(("minimum", "min.other"), _binary("Min")),
    "neg": plain("Neg"),
    "abs": plain("Abs"),
    "sqrt": plain("Sqrt"),
    "reciprocal": plain("Reciprocal"),
    "pow.Tensor_Scalar": _power(),
    "rsqrt": _power(-0.5),
    "square": _power(2.0),
    **dict.fromkeys(("softmax.int", "_softmax"), _softmax),
    "relu": plain("Relu"),
    "relu6": _relu6,
    "hardtanh": _clip("min_val", "max_val"),
    "clamp": _clip("min", "max"),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    **dict.fromkeys(
        ("where.self", "where.Scalar", "where.ScalarOther", "where.ScalarSelf"),
        lambda _: OnnxView("Where", [Operand("condition"), Operand("self"), Operand("other")]),
    ),
    "_prelu_kernel": lambda _: OnnxView("PRelu", [Operand("self"), Operand("weight")]),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    **dict.fromkeys(("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "_to_copy", "to.dtype"), _copies()),
    **dict.fromkeys(("to.device", "to.dtype_layout", "type_as"), _copies()),
}  # fmt: skip
