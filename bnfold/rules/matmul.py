"""Gemm, torch's Linear and MatMul with a constant matrix. MatMul has no bias to take a shift.

A transform of other axes than that of the matrix passes a MatMul, as it does a product of two computed values
(:mod:`bnfold.rules.product`).
"""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import MatrixView, constant, constant_shape, gemm_term_fits, split_operands
from bnfold.ir.product_view import ProductView
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.linear import fold_linear, gemm_view
from bnfold.rules import product
from bnfold.rules.linear_common import Ends, absorb, new_weight
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rewrite, Rule, RuleContext, Transforms, not_constant, weight

# --- Gemm: Y = alpha A B + beta C, with constant B and C; channels on axis 1.
# --- Linear, as torch has it: Y = A B' + C for A of any rank; channels on the last axis.


def _propagate_gemm(node: Node, context: RuleContext) -> Alternatives:
    if refusal := not_constant(node, 1, 2):
        return refusal
    view = MatrixView.of(node)
    if view is None:
        shape = list(constant_shape(node, 1))
        return Refusal(
            "unknown-shape", f"the weight of {node.label} has shape {shape}, its input perhaps no known rank"
        )
    if node.attr("transA", 0) and context.proposed(node.inputs[0]) is not None:
        return Refusal("channel-axis", f"Gemm {node.name!r} transposes its input")
    if not gemm_term_fits(node, view.outer):
        return Refusal("unknown-shape", f"C of Gemm {node.name!r} has shape {list(constant_shape(node, 2))}")
    return absorb(node, context, _ends(node, view), 0 if view.rows_are_outputs else 1)


def _ends(node: Node, view: MatrixView) -> Ends:
    return Ends(node.inputs[view.data], view.axis, view.inner, view.axis, view.outer)


def _rewrite_gemm(node: Node, current: Transforms) -> Rewrite:
    """The factor alpha stays; beta goes into C, whose shape may grow from ``(M, 1)`` to ``(M, N)``."""
    view, shape = MatrixView.of(node), constant_shape(node, 1)
    assert view is not None
    before, after = _ends(node, view).vectors(node, current)
    gain, shift = after
    none = np.zeros_like(shift)
    seen = weight(node, 1, (1, shape[0], shape[1], 1), inputs_first=not view.rows_are_outputs)
    new, offset = fold_linear(seen, None, before, (gain, none))
    offset = node.attr("alpha", 1.0) * offset + shift
    rewrite = new_weight(node, 1, new, before, after, 0 if view.rows_are_outputs else 1)
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


def _matrix(node: Node) -> MatrixView | Refusal:
    """Which operand is the data, which the matrix, and where the channels lie."""
    operands = split_operands(node)
    if operands is None:
        return Refusal("dynamic-weights", f"{node.label} has two non-constant inputs")
    return not_constant(node, operands[1]) or MatrixView.of(node) or _no_matrix(node)


def _no_matrix(node: Node) -> Refusal:
    if node.op == "Einsum":
        return Refusal("nonlinear", f"{node.label} is no product with a matrix along one axis")
    return Refusal("unknown-shape", f"MatMul {node.name!r} needs one constant matrix and an input of known rank")


def _output_axis(node: Node, view: MatrixView) -> int | None:
    """The axis of the weight that counts the outputs, if it is the last; a matrix on the left counts them before."""
    if node.op == "Einsum":
        return 0 if view.rows_are_outputs else 1
    return None if view.rows_are_outputs else len(constant_shape(node, view.weight)) - 1


def _propagate_matmul(node: Node, context: RuleContext) -> Alternatives:
    operands = split_operands(node)
    if operands is None:
        return product.of_two_values(node, context)
    if (refusal := not_constant(node, operands[1])) is not None:
        return refusal
    view, source = _matrix(node), node.inputs[operands[0]]
    assert source is not None
    if isinstance(view, Refusal):
        known = ProductView.of(node) is not None and 0 not in constant_shape(node, operands[1])
        return product.with_constant(node, context, operands[0], None) if known else view
    current = context.current(source), context.current(node.output)
    proposed = (context.proposed(value) for value in (source, node.output))
    around = [*current, *(transform for transform in proposed if transform is not None)]
    beside = any(_varies_beside(transform, view.axis) for transform in around)
    if beside and not any(_varies_along(transform, view.axis) for transform in around):
        return product.with_constant(node, context, operands[0], _scalar(*current))
    alternatives = absorb(node, context, _ends(node, view), _output_axis(node, view), view.weight)
    if beside and not isinstance(alternatives, Refusal):  # what earlier folds put on the other axis
        return Refusal("channel-axis", f"{node.label} has no weight for each entry of another axis")
    if isinstance(alternatives, Refusal):
        return alternatives
    before, after = context.proposed(source), context.proposed(node.output)
    carried = _carried_shift(node, view, context, before)
    if after is None:
        return ABSORBED if carried.is_identity else [[(node.output, carried)]]
    if after.agrees(after.gain_only().after(carried)):
        return ABSORBED
    return Refusal("no-bias", f"{node.label} has no bias")


def _varies_beside(transform: Affine, axis: int) -> bool:
    """Return True if a transform varies along another axis than that of the matrix."""
    return any(size > 1 and index != axis for index, size in enumerate(transform.gain.shape))


def _varies_along(transform: Affine, axis: int) -> bool:
    return transform.gain.ndim > axis and transform.gain.shape[axis] > 1


def _scalar(before: Affine, after: Affine) -> float:
    """Return the factor of the matrix as it stands, where the transforms around it vary along other axes alone."""
    place = int(np.abs(before.gain).argmax())
    size = float(before.gain.reshape(-1)[place])
    return float(after.gain.reshape(-1)[place if after.gain.size > 1 else 0]) / size if size else 1.0


def _carried_shift(node: Node, view: MatrixView, context: RuleContext, before: Affine | None) -> Affine:
    """Return what a shift of the input adds to the output: ``W (h / g)``, with the weights as they stand now."""
    if before is None or not before.has_shift:
        return IDENTITY
    (scale_in, _), (scale_out, _) = _ends(node, view).vectors(node, context.current)
    carried = before.vectors(view.axis, view.inner)
    assert carried is not None
    data = constant(node, view.weight)
    rows = gemm_view(data.reshape(data.shape[-2:]), transposed=view.rows_are_outputs)[0, :, :, 0]
    shift = rows.astype(np.float64) @ (carried[1] / carried[0] / scale_in)
    return Affine.along(view.axis, 1.0, shift * scale_out)


def _rewrite_matmul(node: Node, current: Transforms) -> Rewrite:
    if split_operands(node) is None or isinstance(view := _matrix(node), Refusal):
        return Rewrite()
    source = node.inputs[view.data]
    assert source is not None
    ends, around = _ends(node, view), (current(source), current(node.output))
    if any(_varies_beside(transform, view.axis) for transform in around):
        scale = Affine.of(_scalar(*around), 0.0)
        current = {source: IDENTITY, node.output: scale}.__getitem__
    (gain_in, _), (gain, _) = before, after = ends.vectors(node, current)
    none, shape = np.zeros_like, constant_shape(node, view.weight)
    seen = weight(node, view.weight, (1, shape[-2], shape[-1], 1), inputs_first=not view.rows_are_outputs)
    new, _ = fold_linear(seen, None, (gain_in, none(gain_in)), (gain, none(gain)))
    return new_weight(node, view.weight, new, before, after, _output_axis(node, view))


RULES = {
    "Gemm": Rule(
        "any transform; beta goes into C, alpha stays",
        "any scale but 0 and any offset, without transA",
        _propagate_gemm,
        _rewrite_gemm,
    ),
    "Linear": Rule(
        "any transform on the last axis (torch's own operator)",
        "any scale but 0 and any offset, on the last axis",
        _propagate_gemm,
        _rewrite_gemm,
    ),
    "MatMul": Rule(
        "any scale into a constant; an offset needs a constant Add behind, else the BatchNorm becomes one; along other "
        "axes to the factor that has them, an offset past a Softmax or rows of one sum",
        "any scale but 0 into a constant; an offset goes on to the output; along other axes likewise to the output",
        _propagate_matmul,
        _rewrite_matmul,
    ),
    "Einsum": Rule(
        "as MatMul, for a constant matrix along one axis",
        "as MatMul, for a constant matrix along one axis",
        _propagate_matmul,
        _rewrite_matmul,
    ),
}
