"""What operators mean, as forms: one table, one file per family.

Every function reads the forms of a node's inputs and sets those of its outputs; it answers False where it can't say
more than :func:`opaque`, which takes an operator for what it is: a function of the very values that it reads.
"""

from __future__ import annotations

from collections.abc import Callable

from bnfold.ir.graph import Node
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.semantics.activations import clip, leaky_relu, where
from bnfold.verification.equivalence.semantics.affine_ops import (
    arithmetic,
    batch_norm,
    cast,
    instance_norm,
    negation,
    passed,
)
from bnfold.verification.equivalence.semantics.layout import VIEWS, carried, concat, shape_of, table
from bnfold.verification.equivalence.semantics.linear import conv, fused, gemm, matmul
from bnfold.verification.equivalence.semantics.opaque import opaque, recurrent
from bnfold.verification.equivalence.semantics.sums import add

__all__ = ["SEMANTICS", "opaque"]

Semantics = Callable[[Interpreter, Node], bool]

SEMANTICS: dict[str, Semantics] = {
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
    "Gather": table,
    "Where": where,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), arithmetic),
    **dict.fromkeys(("Identity", "Dropout"), passed),
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
"""What each operator means; one that is not listed is opaque."""
