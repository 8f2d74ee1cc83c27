"""What operators compute, as abstract values: one file per family, with one entry per operator in its ``SEMANTICS``."""

from __future__ import annotations

from bnfold.verification.equivalence.interpreter import Semantics
from bnfold.verification.equivalence.semantics import (
    activations,
    affine_ops,
    choices,
    contraction,
    layer_norms,
    layout,
    linear,
    opaque,
    ort_operators,
    powers,
    sums,
)

FAMILIES = (
    activations, affine_ops, choices, contraction, layer_norms, layout, linear, ort_operators, opaque, powers, sums,
)  # fmt: skip

SEMANTICS = Semantics({op: read for family in FAMILIES for op, read in family.SEMANTICS.items()}, opaque.opaque)
