"""Operators that join and take apart: blocks of entries, and their maps, move from whole to part and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Shape, Value
from bnfold.numerics.affine import Affine
from bnfold.rules.layout import MOST_ENTRIES, Array, Move, Unmovable, moved, pass_moved, propagate_over, unknown
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Assignments, Rewrite, Rule, RuleContext, constant, integers


def _length(value: Value, axis: int) -> int | None:
    """The size of an axis where it is known, and not huge."""
    size = None if value.shape is None else value.shape[axis]
    return size if isinstance(size, int) and size <= MOST_ENTRIES else None


def _gather(node: Node, context: RuleContext) -> Alternatives:
    source, indices = node.inputs[0], node.input(1)
    if source is None or indices is None or not node.graph.constants.is_constant(indices):
        return Refusal("dynamic-weights", f"the indices of Gather {node.name!r} are computed at run time")
    if source.shape is None:
        return pass_moved(node, context, unknown, unknown)
    picked = constant(node, 1)
    axis = node.attr("axis", 0) % len(source.shape)
    return _select(node, context, axis, picked)


def _slice(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    assert source is not None
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    axes, steps = integers(node, "axes", 3), integers(node, "steps", 4)
    computed = (axes is None and node.input(3) is not None) or (steps is None and node.input(4) is not None)
    if starts is None or ends is None or computed or source.shape is None:
        return Refusal("dynamic-weights", f"the bounds of Slice {node.name!r} are computed at run time")
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    rank = len(source.shape)
    cut = [(axis % rank, slice(*span)) for axis, *span in zip(axes, starts, ends, steps, strict=True)]
    known = context.proposed(source) or context.proposed(node.output)
    varying = [] if known is None else [axis for axis, n in enumerate(known.gain.shape) if n > 1]
    relevant = [(axis, span) for axis, span in cut if axis in varying]
    if not relevant:
        alternatives = pass_moved(node, context, lambda array, _: array, lambda array, _: array)
        return (
            alternatives
            if isinstance(alternatives, Refusal)
            else [*alternatives, *_embedded(node, context, cut, source.shape)]
        )
    axis, span = relevant[0]
    size = _length(source, axis)
    if len(relevant) > 1 or size is None:
        return Refusal("unknown-shape", f"Slice {node.name!r} cuts an axis of unknown size, or several")
    return _select(node, context, axis, np.arange(size)[span])


def _embedded(node: Node, context: RuleContext, cut: list[tuple[int, slice]], shape: Shape) -> list[Assignments]:
    """A second way to carry a slice's map back: on the part that is cut out, the rest untouched."""
    source, after = node.inputs[0], context.proposed(node.output)
    assert source is not None
    if after is None or context.proposed(source) is not None or len(cut) != 1:
        return []
    ((axis, span),) = cut
    size = _length(source, axis)
    if size is None:
        return []
    picked = np.arange(size)[span]

    def back(array: Array, fill: float) -> Array:
        return _scattered(propagate_over(array, _with(array.shape, axis, len(picked))), axis, picked, size, fill)

    try:
        return [[(source, moved(after, len(shape), back))]]
    except Unmovable:
        return []


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _select(node: Node, context: RuleContext, axis: int, picked: NDArray[np.integer]) -> Alternatives:
    """Entries ``picked`` along ``axis``; those not picked carry no map."""
    source = node.inputs[0]
    assert source is not None
    size = _length(source, axis)

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
        full = propagate_over(array, (*lead, *picked.shape, *behind)).reshape((*lead, picked.size, *behind))
        return _scattered(full, axis, picked.reshape(-1), size, fill)

    return pass_moved(node, context, forward, backward)


def _scattered(array: Array, axis: int, picked: NDArray[np.integer], size: int, fill: float) -> Array:
    """Entries put back where they were picked from; one that was picked twice must come back the same."""
    result = propagate_over(np.asarray(fill), _with(array.shape, axis, size)).copy()
    place = [slice(None)] * array.ndim
    place[axis] = picked % size  # type: ignore[call-overload]
    result[tuple(place)] = array
    if not np.array_equal(np.take(result, picked, axis), array):
        raise Unmovable("an entry that it repeats would need two different maps")
    return result


def _concat(node: Node, context: RuleContext) -> Alternatives:
    """Along the axis: a piece of the output's map to each input; along others: the same map to all."""
    values = [value for value in node.inputs if value is not None]
    target = node.output
    rank = target.rank
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {target.name!r} is not known")
    axis = node.attr("axis", 1) % rank
    return _parts(node, context, target, values, axis)


def _split(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    assert source is not None
    if source.rank is None or None in node.outputs:
        return Refusal("unknown-shape", f"the rank of {source.name!r}, or an output of {node.name!r}, is not known")
    return _parts(node, context, source, node.live_outputs, node.attr("axis", 0) % source.rank)


def _parts(node: Node, context: RuleContext, whole: Value, parts: Sequence[Value], axis: int) -> Alternatives:
    """A whole and its parts along ``axis``: either side's maps determine the other's."""
    constants = node.graph.constants
    proposed = context.proposed(whole)
    maps = [context.proposed(part) for part in parts]
    sizes = [_length(part, axis) for part in parts]
    known = [map_ for map_ in (proposed, *maps) if map_ is not None]
    alike = all(map_.gain.shape[axis : axis + 1] in ((), (1,)) and map_.agrees(known[0]) for map_ in known)
    everywhere = [
        (v, known[0]) for v in (whole, *parts) if context.proposed(v) is None and not constants.is_constant(v)
    ]
    if alike and (proposed is not None or None not in maps):
        return [everywhere]
    lengths = [size for size in sizes if size is not None]
    if len(lengths) < len(sizes) or whole.rank is None:
        if alike:
            return [everywhere]
        return Refusal("unknown-shape", f"the sizes that {node.op} {node.name!r} works with are not known")
    if proposed is not None:
        pieces = _pieces(proposed, whole.rank, axis, lengths)
        clash = any(m is not None and not m.agrees(piece) for m, piece in zip(maps, pieces, strict=True))
        if clash:
            return Refusal("consumers", f"{node.op} {node.name!r} would need two different maps")
        assignments = zip(parts, pieces, strict=True)
        return [[(v, m) for v, m in assignments if context.proposed(v) is None and not constants.is_constant(v)]]
    filled = [Affine.of(1.0, 0.0) if map_ is None else map_ for map_ in maps]
    try:
        joined = Affine.of(
            _joined([m.gain for m in filled], whole.rank, axis, lengths),
            _joined([m.shift for m in filled], whole.rank, axis, lengths),
        )
    except Unmovable as error:
        return Refusal("unknown-shape", f"{node.op} {node.name!r}: {error}")
    return [[(whole, joined)], everywhere] if alike else [[(whole, joined)]]  # the other parts follow from the whole


def _pieces(map_: Affine, rank: int, axis: int, sizes: list[int]) -> list[Affine]:
    """A map cut along ``axis``; one that does not vary there is the same for each piece."""
    ends = np.cumsum([0, *sizes])

    def cut(index: int) -> Move:
        span = [slice(None)] * rank
        span[axis] = slice(int(ends[index]), int(ends[index + 1]))
        return lambda array, _: array if array.shape[axis] == 1 else array[tuple(span)]

    return [moved(map_, rank, cut(index)) for index in range(len(sizes))]


def _joined(arrays: list[Array], rank: int, axis: int, sizes: list[int]) -> Array:
    full = [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]
    shape = np.broadcast_shapes(*(_with(array.shape, axis, 1) for array in full))
    return np.concatenate(
        [propagate_over(array, _with(shape, axis, size)) for array, size in zip(full, sizes, strict=True)], axis=axis
    )


def _rewrite_concat(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """Constants among the inputs take their piece of the output's map."""
    constants, rank = node.graph.constants, node.output.rank
    fixed = [i for i, value in enumerate(node.inputs) if value is not None and constants.is_constant(value)]
    map_ = current(node.output)
    if not fixed or map_.is_identity:
        return Rewrite()
    assert rank is not None
    axis = node.attr("axis", 1) % rank
    if map_.gain.shape[axis : axis + 1] in ((), (1,)):
        return Rewrite({(node, i): map_(constant(node, i)) for i in fixed})
    sizes = [value.shape[axis] for value in node.inputs if value is not None and value.shape is not None]
    pieces = _pieces(map_, rank, axis, [size for size in sizes if isinstance(size, int)])
    return Rewrite({(node, i): pieces[i](constant(node, i)) for i in fixed})


RULES = {
    "Gather": Rule("to the entries picked by constant indices", "picked with the entries", _gather),
    "Slice": Rule("to the entries cut out by constant bounds", "cut with the entries", _slice),
    "Concat": Rule(
        "a piece to each input; along other axes the same to all",
        "joined; a constant input takes its piece",
        _concat,
        _rewrite_concat,
    ),
    "Split": Rule("joined from the pieces", "a piece to each output", _split),
}
