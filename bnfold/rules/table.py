"""Every rule by operator, and what is said of operators without one. A rule is one entry in its family's ``RULES``."""

from __future__ import annotations

from bnfold.rules import (
    add,
    block_quantized,
    clip,
    concat,
    conv,
    extremes,
    fused,
    identity,
    indexing,
    layer_norms,
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
from bnfold.rules.rule import Rule

FAMILIES = (
    conv, matmul, product, recurrent, normalization, layer_norms, add, mul, power, relu, clip, extremes, pooling,
    reduction, resize, pad, layout, concat, slicing, indexing, identity, fused, block_quantized,
)  # fmt: skip

RULES: dict[str, Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}
"""Every rule, by operator."""


def lookup(op: str) -> Rule | None:
    """The rule of an operator; None pins it."""
    return RULES.get(op)
