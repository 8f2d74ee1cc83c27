"""Every rule by operator, and what is said of operators without one. A rule is one entry in its family's ``RULES``."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.rules import (
    add,
    clip,
    concat,
    conv,
    identity,
    layout,
    matmul,
    mul,
    normalization,
    pad,
    pooling,
    power,
    product,
    recurrent,
    reduction,
    relu,
    resize,
    slicing,
)
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Rule

FAMILIES = (
    conv, matmul, product, recurrent, normalization, add, mul, power, relu, clip, pooling, reduction, resize, pad,
    layout, concat, slicing, identity,
)  # fmt: skip

RULES: dict[str, Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}
"""Every rule, by operator."""


KNOWN = frozenset(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh BitShift Celu Ceil Clip Cos Cosh CumSum Einsum Elu Equal Erf Exp Floor
    GRU GatherElements GatherND Gelu GlobalLpPool GridSample Greater GreaterOrEqual GroupNormalization Hardmax
    HardSigmoid HardSwish InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool Max MaxPool Mean MeanVarianceNormalization Min Mish Mod
    NonMaxSuppression OneHot PRelu Pow RNN Reciprocal Relu RMSNormalization RoiAlign Round Selu Shrink Sigmoid
    Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu TopK Where
    """.split()  # noqa: SIM905
)


def lookup(op: str) -> Rule | None:
    """The rule of an operator; None pins it."""
    return RULES.get(op)


def no_rule(node: Node) -> Refusal:
    """Return why an operator without a rule carries no transform."""
    where = f"{node.label}"
    if node.op in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
        return Refusal("quantized-activation", f"{where} rounds the value to integers")
    if node.op in ("If", "Loop", "Scan"):
        return Refusal("control-flow", f"{where} is control flow")
    if node.op in KNOWN:
        return Refusal("nonlinear", f"{where} does not carry the transform")
    return Refusal("unknown-op", f"{where} is an operator that bnfold has no rule for")
