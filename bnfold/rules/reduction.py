"""Means, sums, extremes, norms and deviations over axes along which the transform does not vary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    integers,
)
from bnfold.rules.layout import Array, Unmovable, pass_moved
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rule,
    RuleContext,
    proposed_around,
)

_REDUCED = "any transform that does not vary along the reduced axes"


def _reduce(node: Node, context: RuleContext) -> Alternatives:
    """Means pass any transform that does not vary along the axes, sums multiply the shift, maxima need a >= 0."""
    source = node.inputs[0]
    assert source is not None
    reduced, rank = reduced_axes(node, source), source.rank
    if reduced is None or rank is None:
        return Refusal("unknown-shape", f"the axes of {node.label} are not known")
    if node.op in ("ReduceMax", "ReduceMin") and any(
        (transform.gain < 0).any() for transform in proposed_around(node, context)
    ):
        return Refusal("nonlinear", f"a negative scale does not pass {node.label}")
    factor = _count(source, reduced) if node.op == "ReduceSum" else 1
    if factor is None:
        if any(transform.has_shift for transform in proposed_around(node, context)):
            return Refusal("unknown-shape", f"how many entries {node.label} adds is not known")
        factor = 1
    forward, backward = _reducing(rank, reduced, bool(node.attr("keepdims", 1)), factor)
    return pass_moved(node, context, forward, backward, plain=False)


def reduced_axes(node: Node, source: Value) -> list[int] | None:
    """Return the axes that a node reduces, in order; None where they, or the rank, are not known."""
    axes, rank = integers(node, "axes", 1), source.rank
    if rank is None or (axes is None and node.input(1) is not None):
        return None
    if not axes:
        axes = [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis % rank for axis in axes})


SQUARES = frozenset({"Var", "ReduceSumSquare"})
DEVIATIONS = frozenset({"Std", "Var"})


def _size(node: Node, context: RuleContext) -> Alternatives:
    """Norms, and torch's deviations: a scale comes out without its sign; an offset changes no deviation."""
    source = node.inputs[0]
    assert source is not None
    reduced, rank, squared = reduced_axes(node, source), source.rank, node.op in SQUARES
    if reduced is None or rank is None:
        return Refusal("unknown-shape", f"the axes of {node.label} are not known")
    before, after = context.proposed(source), context.proposed(node.output)
    if after is not None and (after.has_shift or not (after.gain > 0).all()):
        return Refusal("nonlinear", f"{node.label} is never negative, whatever it reads")
    if before is not None and before.has_shift and node.op not in DEVIATIONS:
        return Refusal("nonlinear", f"an offset does not pass {node.label}")
    plain_forward, plain_backward = _reducing(rank, reduced, bool(node.attr("keepdims", 1)), 1)

    def forward(array: Array, fill: float) -> Array:
        moved = plain_forward(array, fill)
        return np.zeros_like(moved) if fill == 0 else np.square(moved) if squared else np.abs(moved)

    def backward(array: Array, fill: float) -> Array:
        moved = plain_backward(array, fill)
        return np.sqrt(moved) if squared and fill == 1 else moved

    return pass_moved(node, context, forward, backward, plain=False)


def _count(source: Value, reduced: Sequence[int]) -> int | None:
    dims = [None] if source.shape is None else [source.shape[axis] for axis in reduced]
    known = [dim for dim in dims if isinstance(dim, int)]
    return prod(known) if len(known) == len(dims) else None


def _reducing(
    rank: int, reduced: Sequence[int], keep: bool, factor: int
) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array]]:
    """The moves of a reduction; ``fill`` 0 marks the array of shifts, which a sum multiplies."""

    def forward(array: Array, fill: float) -> Array:
        if any(array.shape[axis] != 1 for axis in reduced):
            raise Unmovable("the transform varies along an axis that it reduces")
        array = array * factor if fill == 0 else array
        return array if keep else array.reshape([n for axis, n in enumerate(array.shape) if axis not in reduced])

    def backward(array: Array, fill: float) -> Array:
        array = array / factor if fill == 0 else array
        if keep:
            if any(array.shape[axis] != 1 for axis in reduced):
                raise Unmovable("the transform varies along an axis that it reduces")
            return array
        sizes = iter(array.shape)
        return array.reshape([1 if axis in reduced else next(sizes) for axis in range(rank)])

    return forward, backward


RULES = {
    "ReduceMean": Rule(_REDUCED, _REDUCED, _reduce),
    "Std": Rule("positive scales without offset (torch's own operator)", f"{_REDUCED}; the offset is lost", _size),
    "Var": Rule(
        "positive scales without offset, of which the root is taken (torch's own operator)",
        f"{_REDUCED}; the scale is squared, the offset is lost",
        _size,
    ),
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2"),
        Rule("positive scales, no offset", f"{_REDUCED}, without its sign; no offset", _size),
    ),
    "ReduceSumSquare": Rule(
        "positive scales, of which the root is taken; no offset", f"{_REDUCED}, squared; no offset", _size
    ),
    "ReduceSum": Rule(f"{_REDUCED}; the offset is divided by their number", "multiplied by it", _reduce),
    "ReduceMax": Rule(f"{_REDUCED}, scales >= 0", f"{_REDUCED}, scales >= 0", _reduce),
    "ReduceMin": Rule(f"{_REDUCED}, scales >= 0", f"{_REDUCED}, scales >= 0", _reduce),
}
