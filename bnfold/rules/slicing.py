"""Slice and Gather: transforms are cut and picked with the entries, and go back where those came from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import (
    constant,
    slices,
)
from bnfold.rules.layout import Array, Unmovable, broadcast_over, length_of, moved, pass_moved, unknown, with_size
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    ABSORBED,
    Alternatives,
    Assignments,
    Rule,
    RuleContext,
)


def _gather(node: Node, context: RuleContext) -> Alternatives:
    source, indices = node.inputs[0], node.input(1)
    if source is None or indices is None:
        return Refusal("dynamic-weights", f"the indices of Gather {node.name!r} are computed at run time")
    if source.shape is None:
        return pass_moved(node, context, unknown, unknown)
    axis = node.attr("axis", 0) % len(source.shape)
    if node.graph.constants.is_constant(indices):
        picked = constant(node, 1)
        found = _select(node, context, axis, picked)
        return found if isinstance(found, Refusal) else [*found, *_embedded(node, context, axis, picked)]
    return _pick_at_run_time(node, context, axis, indices.rank)


def _pick_at_run_time(node: Node, context: RuleContext, axis: int, rank: int | None) -> Alternatives:
    """Whatever is picked along ``axis``, by indices of ``rank``: a transform that is the same there passes."""
    refusal = Refusal("dynamic-weights", f"the indices of Gather {node.name!r} are computed at run time")
    if rank is None:
        return pass_moved(node, context, unknown, unknown)

    def forward(array: Array, _: float) -> Array:
        return array.reshape((*array.shape[:axis], *(1,) * rank, *array.shape[axis + 1 :]))

    def backward(array: Array, _: float) -> Array:
        return array.reshape((*array.shape[:axis], 1, *array.shape[axis + rank :]))

    for value, span in ((node.inputs[0], slice(axis, axis + 1)), (node.output, slice(axis, axis + rank))):
        transform = context.proposed(value)
        if transform is not None and any(size > 1 for size in transform.gain.shape[span]):
            return refusal
    return pass_moved(node, context, forward, backward)


def _slice(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    assert source is not None
    cut = slices(node)
    if cut is None or source.shape is None:
        return Refusal("dynamic-weights", f"the axes of Slice {node.name!r} are computed at run time")
    known = context.proposed(source) or context.proposed(node.output)
    varying = [] if known is None else [axis for axis, n in enumerate(known.gain.shape) if n > 1]
    relevant = [(axis, span) for axis, span in cut if axis in varying]
    if not relevant:
        alternatives = pass_moved(node, context, lambda array, _: array, lambda array, _: array)
        if isinstance(alternatives, Refusal) or len(cut) != 1:
            return alternatives
        ((axis, span),) = cut
        size = length_of(source, axis)
        if span is None or size is None:
            return alternatives
        return [*alternatives, *_embedded(node, context, axis, np.arange(size)[span])]
    axis, span = relevant[0]
    if span is None:
        return Refusal("dynamic-weights", f"the bounds of Slice {node.name!r} are computed at run time")
    size = length_of(source, axis)
    if len(relevant) > 1 or size is None:
        return Refusal("unknown-shape", f"Slice {node.name!r} cuts an axis of unknown size, or several")
    return _select(node, context, axis, np.arange(size)[span])


def _embedded(node: Node, context: RuleContext, axis: int, picked: NDArray[np.integer]) -> list[Assignments]:
    """A second way to carry a transform of the output back that is one along ``axis``: the other entries untouched."""
    source, after = node.inputs[0], context.proposed(node.output)
    assert source is not None
    size, rank = length_of(source, axis), node.output.rank
    if after is None or context.proposed(source) is not None or size is None or rank is None:
        return []
    if any(n > 1 for n in after.gain.shape[axis : axis + picked.ndim]):
        return []

    def back(array: Array, fill: float) -> Array:
        lead, behind = array.shape[:axis], array.shape[axis + picked.ndim :]
        full = broadcast_over(array, (*lead, *picked.shape, *behind)).reshape((*lead, picked.size, *behind))
        return _scattered(full, axis, picked.reshape(-1), size, fill)

    try:
        return [[(source, moved(after, rank, back))]]
    except Unmovable:
        return []


def _select(node: Node, context: RuleContext, axis: int, picked: NDArray[np.integer]) -> Alternatives:
    """Entries ``picked`` along ``axis``; those not picked carry no transform."""
    source = node.inputs[0]
    assert source is not None
    size = length_of(source, axis)

    def forward(array: Array, _: float) -> Array:
        return np.take(array, picked if array.shape[axis] > 1 else np.zeros_like(picked), axis)

    def backward(array: Array, fill: float) -> Array:
        behind = array.shape[axis + picked.ndim :]
        lead = array.shape[:axis]
        spans = array.shape[axis : axis + picked.ndim]
        if all(n == 1 for n in spans):
            return array.reshape((*lead, 1, *behind))
        if size is None:
            raise Unmovable("the size of its axis is not known")
        full = broadcast_over(array, (*lead, *picked.shape, *behind)).reshape((*lead, picked.size, *behind))
        return _scattered(full, axis, picked.reshape(-1), size, fill)

    return pass_moved(node, context, forward, backward)


def _scattered(array: Array, axis: int, picked: NDArray[np.integer], size: int, fill: float) -> Array:
    """Entries put back where they were picked from; one that was picked twice must come back the same."""
    result = broadcast_over(np.asarray(fill), with_size(array.shape, axis, size)).copy()
    place = [slice(None)] * array.ndim
    place[axis] = picked % size  # type: ignore[call-overload]
    result[tuple(place)] = array
    if not np.array_equal(np.take(result, picked, axis), array):
        raise Unmovable("an entry that it repeats would need two different transforms")
    return result


def _split_to_sequence(node: Node, context: RuleContext) -> Alternatives:
    """What takes its parts reads them from its input, as Slices do, unless something else needs the sequence."""
    del context
    if node.output.consumers or node.output.is_output or node.output.captured:
        return Refusal("unknown-op", f"{node.label} is an operator that bnfold has no rule for")
    return ABSORBED


RULES = {
    "SplitToSequence": Rule(
        "none of the sequence; its parts are Slices, for sizes and positions that are constants",
        "any transform, if all its parts are such Slices",
        _split_to_sequence,
    ),
    "Gather": Rule("to the entries picked by constant indices", "picked with the entries", _gather),
    "Slice": Rule("to the entries cut out by constant bounds", "cut with the entries", _slice),
}
