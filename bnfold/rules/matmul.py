"""Gemm, torch's Linear and MatMul with a constant matrix. MatMul has no bias to take a shift."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.linear import fold_linear, gemm_view
from bnfold.rules.elementwise import split_operands
from bnfold.rules.linear_common import Ends, Transforms, absorb, new_weight
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    constant,
    constant_shape,
    not_constant,
    weight,
)

# --- Gemm: Y = alpha A B + beta C, with constant B and C; channels on axis 1.
# --- Linear, as torch has it: Y = A B' + C for A of any rank; channels on the last axis.


def _propagate_gemm(node: Node, context: RuleContext) -> Alternatives:
    if refusal := not_constant(node, 1, 2):
        return refusal
    shape = constant_shape(node, 1)
    if len(shape) != 2 or 0 in shape:
        return Refusal("unknown-shape", f"the weight of {node.op} {node.name!r} has shape {list(shape)}")
    transposed, axis = _gemm_layout(node)
    inner, outer = shape[::-1] if transposed else shape
    if axis is None:
        return Refusal("unknown-shape", f"the rank of the input of {node.op} {node.name!r} is not known")
    if node.attr("transA", 0) and context.proposed(node.inputs[0]) is not None:
        return Refusal("channel-axis", f"Gemm {node.name!r} transposes its input")
    terms = constant_shape(node, 2) if node.input(2) is not None else ()
    if len(terms) > 2 or terms[-1:] not in ((), (1,), (outer,)):
        return Refusal("unknown-shape", f"C of Gemm {node.name!r} has shape {list(terms)}")
    return absorb(node, context, Ends(node.inputs[0], axis, inner, axis, outer), 0 if transposed else 1)


def _gemm_layout(node: Node) -> tuple[bool, int | None]:
    """Whether the weight is stored as rows per output, and the axis of the channels."""
    if node.op == "Gemm":
        return bool(node.attr("transB", 0)), 1
    rank = None if node.inputs[0] is None else node.inputs[0].rank
    return True, rank - 1 if rank else None


def _rewrite_gemm(node: Node, current: Transforms) -> Rewrite:
    """The factor alpha stays; beta goes into C, whose shape may grow from ``(M, 1)`` to ``(M, N)``."""
    transposed, axis = _gemm_layout(node)
    assert axis is not None
    shape = constant_shape(node, 1)
    inner, outer = shape[::-1] if transposed else shape
    before, after = Ends(node.inputs[0], axis, inner, axis, outer).vectors(node, current)
    gain, shift = after
    none = np.zeros_like(shift)
    seen = weight(node, 1, (1, shape[0], shape[1], 1), inputs_first=not transposed)
    new, offset = fold_linear(seen, None, before, (gain, none))
    offset = node.attr("alpha", 1.0) * offset + shift
    rewrite = new_weight(node, 1, new, before, after, 0 if transposed else 1)
    if not (before[1].any() or shift.any() or (gain != 1).any()):
        return rewrite
    beta = node.attr("beta", 1.0)
    if node.input(2) is not None:
        rewrite.constants[node, 2] = np.asarray(gain * beta * constant(node, 2).astype(np.float64) + offset)
    elif offset.any():
        rewrite.constants[node, 2] = offset
    if beta != 1.0:
        rewrite.attributes[node, "beta"] = 1.0
    return rewrite


# --- MatMul with a constant matrix on either side; there is no bias to take a shift


def _matrix(node: Node) -> tuple[int, int, Ends] | Refusal:
    """Which operand is the data, which the matrix, and where the channels lie."""
    operands = split_operands(node)
    if operands is None:
        return Refusal("dynamic-weights", f"MatMul {node.name!r} multiplies two computed values")
    data, index = operands
    if refusal := not_constant(node, index):
        return refusal
    source, shape = node.inputs[data], constant_shape(node, index)
    rank = None if source is None else source.rank
    if rank is None or rank < 2 or not 2 <= len(shape) <= rank or any(n != 1 for n in shape[:-2]) or 0 in shape:
        return Refusal("unknown-shape", f"MatMul {node.name!r} needs one constant matrix and an input of known rank")
    axis = rank - 1 if data == 0 else rank - 2
    inner, outer = shape[-2:] if data == 0 else shape[:-3:-1]
    return data, index, Ends(source, axis, inner, axis, outer)


def _propagate_matmul(node: Node, context: RuleContext) -> Alternatives:
    found = _matrix(node)
    if isinstance(found, Refusal):
        return found
    data, index, ends = found
    source = node.inputs[data]
    assert source is not None
    alternatives = absorb(node, context, ends, len(constant_shape(node, index)) - 1 if data == 0 else None, index)
    if isinstance(alternatives, Refusal):
        return alternatives
    before, after = context.proposed(source), context.proposed(node.output)
    carried = _carried_shift(node, index, ends, context, before)
    if after is None:
        return ABSORBED if carried.is_identity else [[(node.output, carried)]]
    if after.agrees(after.gain_only().after(carried)):
        return ABSORBED
    return Refusal("no-bias", f"MatMul {node.name!r} has no bias")


def _carried_shift(node: Node, index: int, ends: Ends, context: RuleContext, before: Affine | None) -> Affine:
    """What a shift of the input adds to the output: ``W (h / g)``, with the weights as they stand now."""
    if before is None or not before.has_shift:
        return IDENTITY
    (scale_in, _), (scale_out, _) = ends.vectors(node, context.current)
    carried = before.vectors(ends.axis_in, ends.size_in)
    assert carried is not None
    data = constant(node, index)
    rows = gemm_view(data.reshape(data.shape[-2:]), transposed=index == 0)[0, :, :, 0].astype(np.float64)
    return Affine.along(ends.axis_out, 1.0, (rows @ (carried[1] / carried[0] / scale_in)) * scale_out)


def _rewrite_matmul(node: Node, current: Transforms) -> Rewrite:
    found = _matrix(node)
    assert not isinstance(found, Refusal)
    data, index, ends = found
    (gain_in, _), (gain, _) = before, after = ends.vectors(node, current)
    none, shape = np.zeros_like, constant_shape(node, index)
    seen = weight(node, index, (1, shape[-2], shape[-1], 1), inputs_first=index == 1)
    new, _ = fold_linear(seen, None, (gain_in, none(gain_in)), (gain, none(gain)))
    return new_weight(node, index, new, before, after, len(shape) - 1 if data == 0 else None)


RULES = {
    "Gemm": Rule(
        "any map; beta goes into C, alpha stays",
        "any gain but 0 and any shift, without transA",
        _propagate_gemm,
        _rewrite_gemm,
    ),
    "Linear": Rule(
        "any map on the last axis (torch's own operator)",
        "any gain but 0 and any shift, on the last axis",
        _propagate_gemm,
        _rewrite_gemm,
    ),
    "MatMul": Rule(
        "any gain; a shift needs a constant Add behind, else the BatchNorm becomes one",
        "any gain but 0; a shift goes on to the output",
        _propagate_matmul,
        _rewrite_matmul,
    ),
}
