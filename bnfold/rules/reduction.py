"""ReduceMean, ReduceSum, ReduceMax and ReduceMin, over axes along which the transform does not vary."""

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
    rank = source.rank
    axes = integers(node, "axes", 1)
    if rank is None or (axes is None and node.input(1) is not None):
        return Refusal("unknown-shape", f"the axes of {node.label} are not known")
    if not axes:
        axes = [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))
    reduced = sorted({axis % rank for axis in axes})
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


def _spread(node: Node, context: RuleContext) -> Alternatives:
    """Torch's standard deviation and variance: an offset changes nothing, a scale comes out without its sign."""
    source = node.inputs[0]
    assert source is not None
    rank, squared = source.rank, node.op == "Var"
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {source.name!r} is not known")
    after = context.proposed(node.output)
    if after is not None and (after.has_shift or not (after.gain > 0).all()):
        return Refusal("nonlinear", f"{node.label} is never negative, whatever it reads")
    plain_forward, plain_backward = _reducing(
        rank, sorted({axis % rank for axis in node.attr("axes")}), bool(node.attr("keepdims", 1)), 1
    )

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
    "Std": Rule("positive scales without offset (torch's own operator)", f"{_REDUCED}; the offset is lost", _spread),
    "Var": Rule(
        "positive scales without offset, of which the root is taken (torch's own operator)",
        f"{_REDUCED}; the scale is squared, the offset is lost",
        _spread,
    ),
    "ReduceSum": Rule(f"{_REDUCED}; the offset is divided by their number", "multiplied by it", _reduce),
    "ReduceMax": Rule(f"{_REDUCED}, scales >= 0", f"{_REDUCED}, scales >= 0", _reduce),
    "ReduceMin": Rule(f"{_REDUCED}, scales >= 0", f"{_REDUCED}, scales >= 0", _reduce),
}
