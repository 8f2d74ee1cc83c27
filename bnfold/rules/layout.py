"""Layout operators (Transpose, Reshape, Expand, ...): they compute nothing, a transform moves as the entries do.

Each operator is described by how it moves an array that is laid out like the transform, from input to output
(``forward``) and back (``backward``). Such an array has the tensor's rank and length 1 along the axes on which the
transform does not vary, so a batch of unknown size costs nothing. Where a transform comes out that no longer varies
along whole axes alone, the array says so and the linear operators refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Shape, Value
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import ABSORBED, Alternatives, Rule, RuleContext

Array = NDArray[np.float64]
Move = Callable[[Array, float], Array]
"""An array laid out like the transform, and what stands where the transform says nothing (gain 1, shift 0)."""

MOST_ENTRIES = 2**22
"""Entries of a transform that an operator may spread it over: a few bytes can declare axes of any size."""


class Unmovable(Exception):
    """The transform can't be carried over; the message says why."""


def moved(transform: Affine, rank: int, move: Move) -> Affine:
    """``transform`` of a tensor of ``rank`` axes, after ``move``. Raises Unmovable."""
    shape = transform.gain.shape + (1,) * (rank - transform.gain.ndim)
    return Affine.of(move(transform.gain.reshape(shape), 1.0), move(transform.shift.reshape(shape), 0.0))


def pass_moved(node: Node, context: RuleContext, forward: Move, backward: Move, *, plain: bool = True) -> Alternatives:
    """One input, one output: the output's transform is the input's, moved.

    ``plain``: a transform that is the same everywhere passes unchanged, whatever the shapes.
    """
    source, target = node.inputs[0], node.output
    assert source is not None
    before, after = context.proposed(source), context.proposed(target)
    known = before if before is not None else after
    if known is None:
        return parameter_refusal(node)
    if plain and known.gain.ndim == 0:
        if before is None or after is None:
            return [[(target if after is None else source, known)]]
        if before.agrees(after):
            return ABSORBED
    if source.rank is None or target.rank is None:
        return Refusal("unknown-shape", f"the rank of {source.name!r} is not known")
    try:
        if before is None:
            assert after is not None
            return [[(source, moved(after, target.rank, backward))]]
        carried = moved(before, source.rank, forward)
    except Unmovable as error:
        return Refusal("channel-axis", f"{node.label}: {error}")
    if after is None:
        return [[(target, carried)]]
    if carried.agrees(after):
        return ABSORBED
    return Refusal("consumers", f"{node.label} would need two different transforms")


def _transpose(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    if source is None or source.rank is None:
        return pass_moved(node, context, unknown, unknown)
    perm = node.attr("perm", list(range(source.rank))[::-1])
    return pass_moved(
        node, context, lambda array, _: array.transpose(perm), lambda array, _: array.transpose(np.argsort(perm))
    )


def unknown(array: Array, fill: float) -> Array:
    """No move: nothing is known of the tensor's axes."""
    raise Unmovable("the rank of its input is not known")


def _reshape(node: Node, context: RuleContext) -> Alternatives:
    """Reshape, Flatten, Squeeze and Unsqueeze alike: entries keep their order."""
    source, target = node.inputs[0], node.output
    assert source is not None
    before, after = source.shape, target.shape
    if before is None or after is None:
        return pass_moved(node, context, unknown, unknown)
    return pass_moved(
        node, context, lambda array, _: reshaped(array, before, after), lambda array, _: reshaped(array, after, before)
    )


def broadcast_over(array: Array, shape: Sequence[int]) -> Array:
    """An array seen over a larger shape. Raises Unmovable for one that is huge."""
    if prod(shape) > MOST_ENTRIES:
        raise Unmovable("it mixes the channels with an axis of unknown or huge size")
    return np.broadcast_to(array, shape)


def reshaped(array: Array, before: Shape, after: Shape) -> Array:
    """A transform's array over ``before``, seen over ``after``.

    The axes fall into groups of equal product, each reshaped on its own; only the groups along which the
    transform varies are spread out. Unknown dimensions take part as numbers of their own (large primes).
    Raises Unmovable.
    """
    one, other = _numbered(before, after)
    runs: list[tuple[slice, slice]] = []
    i = j = 0
    while j < len(other):  # what is left of the one then has length 1
        start, stop = i, j
        left, right = one[i] if i < len(one) else 1, other[j]
        i, j = min(i + 1, len(one)), j + 1
        while left != right:
            if left < right:
                left, i = left * one[i], i + 1
            else:
                right, j = right * other[j], j + 1
        runs.append((slice(start, i), slice(stop, j)))
    shape: list[int] = []
    for ours, theirs in runs:
        if all(size == 1 for size in array.shape[ours]):
            shape += [1] * len(other[theirs])
            continue
        array = broadcast_over(array, (*array.shape[: ours.start], *one[ours], *array.shape[ours.stop :]))
        shape += other[theirs]
    return np.ascontiguousarray(array).reshape(shape)


PRIMES = (4294967311, 4294967357, 4294967371, 4294967377, 4294967387, 4294967389, 4294967459, 4294967477)
"""Numbers that stand for unknown dimensions: none of them divides a product of real ones."""


def _numbered(before: Shape, after: Shape) -> tuple[list[int], list[int]]:
    """Both shapes in numbers: unknown dimensions of one side as primes, one of the other then follows.

    A symbol that both sides know is one unknown number; one that only one side knows says nothing. Raises Unmovable.
    """
    shared = sorted({dim for dim in before if isinstance(dim, str)} & {dim for dim in after if isinstance(dim, str)})
    primes = iter(PRIMES)
    numbers = dict(zip(shared, primes, strict=False))
    one, other = ([numbers.get(d) if isinstance(d, str) else d for d in shape] for shape in (before, after))
    if 0 in one or 0 in other or len(shared) + one.count(None) + other.count(None) > len(PRIMES):
        raise Unmovable("it has an empty dimension, or too many unknown ones")
    follows = other.count(None) == 0 or (one.count(None) <= 1 < other.count(None))
    free, bound = (other, one) if follows else (one, other)
    if bound.count(None) > 1:
        raise Unmovable("several of its dimensions are unknown")
    known = [next(primes) if dim is None else dim for dim in free]
    rest = prod(dim for dim in bound if dim is not None)
    if None in bound and prod(known) % rest:
        if free.count(None) > 1:
            raise Unmovable("an unknown dimension can't be worked out")
        free, bound = bound, free  # the other one is a multiple of this one
        known = [next(primes) if dim is None else dim for dim in free]
        rest = prod(dim for dim in bound if dim is not None)
        if prod(known) % rest:
            raise Unmovable("an unknown dimension can't be worked out")
    solved = [prod(known) // rest if dim is None else dim for dim in bound]
    if prod(known) != prod(solved):
        raise Unmovable("its shapes don't match")
    return (known, solved) if free is one else (solved, known)


def _expand(node: Node, context: RuleContext) -> Alternatives:
    """Expand repeats: a transform must not vary along what is repeated."""
    source, target = node.inputs[0], node.output
    assert source is not None
    if source.shape is None or target.shape is None:
        return pass_moved(node, context, unknown, unknown)
    grown = len(target.shape) - len(source.shape)
    inner: Shape = source.shape

    def backward(array: Array, _: float) -> Array:
        repeated = [have for have, dim in zip(array.shape, (*[1] * grown, *inner), strict=True) if have not in (1, dim)]
        if repeated:
            raise Unmovable("it repeats the value along an axis on which the transform varies")
        return array.reshape(array.shape[grown:])

    return pass_moved(node, context, lambda array, _: array.reshape((1,) * grown + array.shape), backward)


def _space_to_depth(node: Node, context: RuleContext) -> Alternatives:
    """Blocks of positions become channels: the transform of a channel is repeated for each of them."""
    block = node.attr("blocksize", 1) ** 2
    crd = node.attr("mode", "DCR") == "CRD"

    def repeat_over_block(array: Array, _: float) -> Array:
        _only_channels(array)
        channels = array.shape[1]
        every = (array.shape[0], channels, block) if crd else (array.shape[0], block, channels)
        array = broadcast_over(np.expand_dims(array, 2 if crd else 1), (*every, *array.shape[2:]))
        return array.reshape(array.shape[0], block * channels, *array.shape[3:])

    def gather(array: Array, _: float) -> Array:
        _only_channels(array)
        if array.shape[1] == 1:
            return array
        channels = array.shape[1] // block
        order = (array.shape[0], channels, block) if crd else (array.shape[0], block, channels)
        split = np.moveaxis(array.reshape(*order, *array.shape[2:]), 2 if crd else 1, 0)
        if (split != split[0]).any():
            raise Unmovable("it puts channels with different transforms into one")
        first: Array = split[0]
        return first

    deep = node.op == "SpaceToDepth"
    return pass_moved(node, context, repeat_over_block if deep else gather, gather if deep else repeat_over_block)


def _only_channels(array: Array) -> None:
    if any(size != 1 for size in array.shape[2:]):
        raise Unmovable("it rearranges the positions along which the transform varies")


_ORDER = "moves with the entries; it must come out constant along whole axes"


def length_of(value: Value, axis: int) -> int | None:
    """Return the size of an axis where it is known, and not huge."""
    size = None if value.shape is None else value.shape[axis]
    return size if isinstance(size, int) and size <= MOST_ENTRIES else None


def with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """Return ``shape`` with another size along ``axis``."""
    return (*shape[:axis], size, *shape[axis + 1 :])


RULES = {
    "Transpose": Rule("moves with the axes", "moves with the axes", _transpose),
    "Reshape": Rule(_ORDER, _ORDER, _reshape),
    "Flatten": Rule(_ORDER, _ORDER, _reshape),
    "Squeeze": Rule(_ORDER, _ORDER, _reshape),
    "Unsqueeze": Rule(_ORDER, _ORDER, _reshape),
    "Expand": Rule("if it does not vary along what is repeated", "passes", _expand),
    "SpaceToDepth": Rule("if the same for all positions of a block", "repeated for each position", _space_to_depth),
    "DepthToSpace": Rule("repeated for each position (DCR and CRD)", "if the same for a block", _space_to_depth),
}
