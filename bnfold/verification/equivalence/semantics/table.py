"""What operators compute, as abstract values: one table, one file per family."""

from __future__ import annotations

from bnfold.verification.equivalence.interpreter import Semantics
from bnfold.verification.equivalence.semantics.activations import clip, leaky_relu, where
from bnfold.verification.equivalence.semantics.affine_ops import (
    arithmetic,
    batch_norm,
    cast,
    identity,
    instance_norm,
    negation,
)
from bnfold.verification.equivalence.semantics.layout import VIEWS, carried, concat, gather, shape_of
from bnfold.verification.equivalence.semantics.linear import conv, fused, gemm, matmul
from bnfold.verification.equivalence.semantics.opaque import opaque, recurrent
from bnfold.verification.equivalence.semantics.sums import add

_BY_OPERATOR = {
    "BatchNormalization": batch_norm,
    "Neg": negation,
    "Cast": cast,
    "Conv": conv,
    "ConvTranspose": conv,
    "Gemm": gemm,
    "Linear": gemm,
    "MatMul": matmul,
    "com.microsoft::FusedConv": fused,
    "com.microsoft::FusedGemm": fused,
    "Sum": add,
    "Concat": concat,
    "InstanceNormalization": instance_norm,
    "Gather": gather,
    "Where": where,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), arithmetic),
    **dict.fromkeys(("Identity", "Dropout"), identity),
    **dict.fromkeys(("Relu", "Clip", "Max", "Min"), clip),
    **dict.fromkeys(("LeakyRelu", "PRelu"), leaky_relu),
    **dict.fromkeys(("Shape", "Size"), shape_of),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(
        (
            *VIEWS, "Transpose", "Expand", "SpaceToDepth", "DepthToSpace", "MaxPool", "GlobalMaxPool", "AveragePool",
            "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Resize", "Upsample", "Pad",
            "Slice", "Split",
        ),
        carried,
    ),
}  # fmt: skip

SEMANTICS = Semantics(_BY_OPERATOR, opaque)
