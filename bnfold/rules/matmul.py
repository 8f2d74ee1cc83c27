"""Gemm, torch's Linear and MatMul with a constant matrix. MatMul has no bias to take a shift."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape, gemm_term_fits, split_operands
from bnfold.ir.product_views import MatrixView, split_equation
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.linear import fold_linear, gemm_view
from bnfold.rules import labelled_product, product
from bnfold.rules.linear_common import Ends, absorb, new_weight
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
    Transforms,
    not_constant,
    off_axis,
    weight,
)

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
    if node.op == "Einsum" and split_equation(node) is None:
        return Refusal("unknown-op", f"{node.label} has an equation that bnfold has no rule for")
    return Refusal("unknown-shape", f"{node.label} needs one constant and an input of known shape")


def _output_axis(node: Node, view: MatrixView) -> int | None:
    """The axis of the weight that counts the outputs, if it is the last; a matrix on the left counts them before."""
    if node.op == "Einsum":
        return 0 if view.rows_are_outputs else 1
    return None if view.rows_are_outputs else len(constant_shape(node, view.weight)) - 1


def _propagate_matmul(node: Node, context: RuleContext) -> Alternatives:
    if split_operands(node) is None:
        return product.of_two_values(node, context)
    view = _matrix(node)
    if isinstance(view, Refusal) or not _on_its_axis(node, view, context.current, context.proposed):
        return _propagate_along_other_axes(node, context, view)
    source = node.inputs[view.data]
    assert source is not None
    alternatives = absorb(node, context, _ends(node, view), _output_axis(node, view), view.weight)
    if isinstance(alternatives, Refusal):
        return alternatives
    before, after = context.proposed(source), context.proposed(node.output)
    carried = _carried_shift(node, view, context, before)
    if after is None:
        return ABSORBED if carried.is_identity else [[(node.output, carried)]]
    if after.agrees(after.gain_only().after(carried)):
        return ABSORBED
    return Refusal("no-bias", f"{node.label} has no bias")


def _on_its_axis(node: Node, view: MatrixView, *transforms: Callable[[Value], Affine | None]) -> bool:
    """Return True if all transforms of data and result vary at most along the axis of the channels."""
    source = node.inputs[view.data]
    assert source is not None
    found = [(give(v), n) for give in transforms for v, n in ((source, view.inner), (node.output, view.outer))]
    return all(transform is None or transform.vectors(view.axis, size) is not None for transform, size in found)


def _propagate_along_other_axes(node: Node, context: RuleContext, view: MatrixView | Refusal) -> Alternatives:
    """What the constant does not tell apart goes on to the data; ``view`` says why it is no plain matrix, or is it."""
    if isinstance(view, Refusal) and view.reason != "unknown-shape":
        return view
    found = labelled_product.propagate(node, context)
    if not isinstance(found, Refusal) or found.reason not in ("unknown-shape", "channel-axis"):
        return found
    if isinstance(view, Refusal):
        return view if found.reason == "unknown-shape" else found
    ends = _ends(node, view)
    for value, axis, size in ((node.output, ends.axis_out, ends.size_out), (ends.source, ends.axis_in, ends.size_in)):
        transform = context.proposed(value)
        if transform is not None and (refusal := off_axis(transform, node, axis, size)):
            return refusal
    return found


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
    if split_operands(node) is None:
        return Rewrite()
    view = _matrix(node)
    if isinstance(view, Refusal) or not _on_its_axis(node, view, current):
        return labelled_product.rewrite(node, current)
    (gain_in, _), (gain, _) = before, after = _ends(node, view).vectors(node, current)
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
        "any scale into a constant, along axes that it does not have on to the data; an offset needs a constant Add "
        "behind, else the BatchNorm becomes one; of two values to the one with those axes, an offset past a Softmax",
        "any scale but 0 into a constant, along axes that it does not have on to the output; an offset goes on to the "
        "output; of two values likewise, an offset past a Softmax",
        _propagate_matmul,
        _rewrite_matmul,
    ),
    "Einsum": Rule(
        "as MatMul, for a constant with any axes; no ellipsis, no label twice in a term",
        "as MatMul, for a constant with any axes; no ellipsis, no label twice in a term",
        _propagate_matmul,
        _rewrite_matmul,
    ),
}
