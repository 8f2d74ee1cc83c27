"""Concat and Split: the transforms of a whole and of its parts determine each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import (
    constant,
)
from bnfold.numerics.affine import Affine
from bnfold.rules.layout import Array, Move, Unmovable, broadcast_over, length_of, moved, with_size
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import (
    Alternatives,
    Rewrite,
    Rule,
    RuleContext,
)


def _concat(node: Node, context: RuleContext) -> Alternatives:
    """Along the axis: a slice of the output's transform to each input; along others: the same transform to all."""
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
    """A whole and its parts along ``axis``: either side's transforms determine the other's."""
    constants = node.graph.constants
    proposed = context.proposed(whole)
    transforms = [context.proposed(part) for part in parts]
    sizes = [length_of(part, axis) for part in parts]
    known = [transform for transform in (proposed, *transforms) if transform is not None]
    alike = all(
        transform.gain.shape[axis : axis + 1] in ((), (1,)) and transform.agrees(known[0]) for transform in known
    )
    everywhere = [
        (v, known[0]) for v in (whole, *parts) if context.proposed(v) is None and not constants.is_constant(v)
    ]
    if alike and (proposed is not None or None not in transforms):
        return [everywhere]
    lengths = [size for size in sizes if size is not None]
    if len(lengths) < len(sizes) or whole.rank is None:
        if alike:
            return [everywhere]
        return Refusal("unknown-shape", f"the sizes that {node.label} works with are not known")
    if proposed is not None:
        slices = _slices(proposed, whole.rank, axis, lengths)
        clash = any(m is not None and not m.agrees(slice_) for m, slice_ in zip(transforms, slices, strict=True))
        if clash:
            return Refusal("consumers", f"{node.label} would need two different transforms")
        assignments = zip(parts, slices, strict=True)
        return [[(v, m) for v, m in assignments if context.proposed(v) is None and not constants.is_constant(v)]]
    filled = [Affine.of(1.0, 0.0) if transform is None else transform for transform in transforms]
    try:
        joined = Affine.of(
            _joined([m.gain for m in filled], whole.rank, axis, lengths),
            _joined([m.shift for m in filled], whole.rank, axis, lengths),
        )
    except Unmovable as error:
        return Refusal("unknown-shape", f"{node.label}: {error}")
    return [[(whole, joined)], everywhere] if alike else [[(whole, joined)]]  # the other parts follow from the whole


def _slices(transform: Affine, rank: int, axis: int, sizes: list[int]) -> list[Affine]:
    """A transform cut along ``axis``; one that does not vary there is the same for each slice."""
    ends = np.cumsum([0, *sizes])

    def cut(index: int) -> Move:
        span = [slice(None)] * rank
        span[axis] = slice(int(ends[index]), int(ends[index + 1]))
        return lambda array, _: array if array.shape[axis] == 1 else array[tuple(span)]

    return [moved(transform, rank, cut(index)) for index in range(len(sizes))]


def _joined(arrays: list[Array], rank: int, axis: int, sizes: list[int]) -> Array:
    full = [array.reshape(array.shape + (1,) * (rank - array.ndim)) for array in arrays]
    shape = np.broadcast_shapes(*(with_size(array.shape, axis, 1) for array in full))
    return np.concatenate(
        [broadcast_over(array, with_size(shape, axis, size)) for array, size in zip(full, sizes, strict=True)],
        axis=axis,
    )


def _rewrite_concat(node: Node, current: Callable[[Value], Affine]) -> Rewrite:
    """Constants among the inputs take their slice of the output's transform."""
    constants, rank = node.graph.constants, node.output.rank
    fixed = [i for i, value in enumerate(node.inputs) if value is not None and constants.is_constant(value)]
    transform = current(node.output)
    if not fixed or transform.is_identity:
        return Rewrite()
    assert rank is not None
    axis = node.attr("axis", 1) % rank
    if transform.gain.shape[axis : axis + 1] in ((), (1,)):
        return Rewrite({(node, i): transform(constant(node, i)) for i in fixed})
    sizes = [value.shape[axis] for value in node.inputs if value is not None and value.shape is not None]
    slices = _slices(transform, rank, axis, [size for size in sizes if isinstance(size, int)])
    return Rewrite({(node, i): slices[i](constant(node, i)) for i in fixed})


RULES = {
    "Concat": Rule(
        "a slice to each input; along other axes the same to all",
        "joined; a constant input takes its slice",
        _concat,
        _rewrite_concat,
    ),
    "Split": Rule("joined from the slices", "a slice to each output", _split),
}
