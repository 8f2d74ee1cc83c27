"""Operators that move values about without computing: a map moves as they do.

Each operator is described by how it moves an array that is laid out like the map, from input to output
(``forward``) and back (``backward``). Such an array has the tensor's rank and length 1 along the axes on which the
map does not vary, so a batch of unknown size costs nothing. Where a map comes out that no longer varies along
whole axes alone, the array says so and the linear operators refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.graph import Node, Shape, Value
from bnfold.ops import DONE, Demands, Flood, Rewrite, Rule, Spread, constant, integers
from bnfold.reasons import Kept

Array = NDArray[np.float64]
Move = Callable[[Array, float], Array]
"""An array laid out like the map, and what stands where the map says nothing (gain 1, shift 0)."""

MOST_ENTRIES = 2**22
"""Entries of a map that a reshape may spread it over."""


class Unmovable(Exception):
    """The map can't be carried over; the message says why."""


def moved(map_: Affine, rank: int, move: Move) -> Affine:
    """``map_`` of a tensor of ``rank`` axes, after ``move``. Raises Unmovable."""
    shape = map_.gain.shape + (1,) * (rank - map_.gain.ndim)
    return Affine.of(move(map_.gain.reshape(shape), 1.0), move(map_.shift.reshape(shape), 0.0))


def pass_moved(node: Node, flood: Flood, forward: Move, backward: Move, *, plain: bool = True) -> Spread:
    """One input, one output: the output's map is the input's, moved.

    ``plain``: a map that is the same everywhere passes unchanged, whatever the shapes.
    """
    source, target = node.inputs[0], node.output
    assert source is not None
    before, after = flood.given(source), flood.given(target)
    known = before if before is not None else after
    assert known is not None
    if plain and known.gain.ndim == 0 and (before is None or after is None):
        return [[(target if after is None else source, known)]]
    if source.rank is None or target.rank is None:
        return Kept("unknown-shape", f"the rank of {source.name!r} is not known")
    try:
        if before is None:
            assert after is not None
            return [[(source, moved(after, target.rank, backward))]]
        carried = moved(before, source.rank, forward)
    except Unmovable as error:
        return Kept("channel-axis", f"{node.op} {node.name!r}: {error}")
    if after is None:
        return [[(target, carried)]]
    if carried.agrees(after):
        return DONE
    return Kept("consumers", f"{node.op} {node.name!r} would need two different maps")


def _transpose(node: Node, flood: Flood) -> Spread:
    source = node.inputs[0]
    if source is None or source.rank is None:
        return pass_moved(node, flood, _unknown, _unknown)
    perm = node.attr("perm", list(range(source.rank))[::-1])
    return pass_moved(
        node, flood, lambda array, _: array.transpose(perm), lambda array, _: array.transpose(np.argsort(perm))
    )


def _unknown(array: Array, fill: float) -> Array:
    raise Unmovable("the rank of its input is not known")


def _reshape(node: Node, flood: Flood) -> Spread:
    """Reshape, Flatten, Squeeze and Unsqueeze alike: entries keep their order."""
    source, target = node.inputs[0], node.output
    assert source is not None
    before, after = source.shape, target.shape
    if before is None or after is None:
        return pass_moved(node, flood, _unknown, _unknown)
    return pass_moved(
        node, flood, lambda array, _: reshaped(array, before, after), lambda array, _: reshaped(array, after, before)
    )


def reshaped(array: Array, before: Shape, after: Shape) -> Array:
    """A map's array over ``before``, seen over ``after``.

    The axes fall into groups of equal product, each reshaped on its own; only the groups along which the
    map varies are spread out. Unknown dimensions take part as numbers of their own (large primes). Raises Unmovable.
    """
    one, other = _numbered(before, after)
    pieces: list[tuple[slice, slice]] = []
    i = j = 0
    while i < len(one) or j < len(other):
        start, stop = i, j
        left, right = one[i] if i < len(one) else 1, other[j] if j < len(other) else 1
        i, j = min(i + 1, len(one)), min(j + 1, len(other))
        while left != right:
            if left < right:
                left, i = left * one[i], i + 1
            else:
                right, j = right * other[j], j + 1
        pieces.append((slice(start, i), slice(stop, j)))
    shape: list[int] = []
    for ours, theirs in pieces:
        if all(size == 1 for size in array.shape[ours]):
            shape += [1] * len(other[theirs])
            continue
        if any(size > MOST_ENTRIES for size in one[ours]) or prod(one[ours]) > MOST_ENTRIES:
            raise Unmovable("it mixes the channels with an axis of unknown or huge size")
        array = np.broadcast_to(array, [*array.shape[: ours.start], *one[ours], *array.shape[ours.stop :]])
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
    free, bound = (one, other) if other.count(None) <= 1 else (other, one)
    if bound.count(None) > 1:
        raise Unmovable("several of its dimensions are unknown")
    known = [next(primes) if dim is None else dim for dim in free]
    rest = prod(dim for dim in bound if dim is not None)
    if None in bound and prod(known) % rest:
        raise Unmovable("an unknown dimension can't be worked out")
    solved = [prod(known) // rest if dim is None else dim for dim in bound]
    if prod(known) != prod(solved):
        raise Unmovable("its shapes don't match")
    return (known, solved) if free is one else (solved, known)


def _expand(node: Node, flood: Flood) -> Spread:
    """Expand repeats: a map must not vary along what is repeated."""
    source, target = node.inputs[0], node.output
    assert source is not None
    if source.shape is None or target.shape is None:
        return pass_moved(node, flood, _unknown, _unknown)
    grown = len(target.shape) - len(source.shape)
    inner: Shape = source.shape

    def backward(array: Array, _: float) -> Array:
        repeated = [have for have, dim in zip(array.shape, (*[1] * grown, *inner), strict=True) if have not in (1, dim)]
        if repeated or prod(array.shape[:grown]) != 1:
            raise Unmovable("it repeats the value along an axis on which the map varies")
        return array.reshape(array.shape[grown:])

    return pass_moved(node, flood, lambda array, _: array.reshape((1,) * grown + array.shape), backward)


def _gather(node: Node, flood: Flood) -> Spread:
    source, indices = node.inputs[0], node.input(1)
    if source is None or indices is None or not node.graph.constants.is_constant(indices):
        return Kept("dynamic-weights", f"the indices of Gather {node.name!r} are computed at run time")
    if source.shape is None:
        return pass_moved(node, flood, _unknown, _unknown)
    picked = constant(node, 1)
    axis = node.attr("axis", 0) % len(source.shape)
    return _select(node, flood, axis, picked)


def _slice(node: Node, flood: Flood) -> Spread:
    source = node.inputs[0]
    assert source is not None
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    axes, steps = integers(node, "axes", 3), integers(node, "steps", 4)
    computed = (axes is None and node.input(3) is not None) or (steps is None and node.input(4) is not None)
    if starts is None or ends is None or computed or source.shape is None:
        return Kept("dynamic-weights", f"the bounds of Slice {node.name!r} are computed at run time")
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    rank = len(source.shape)
    cut = [(axis % rank, slice(*span)) for axis, *span in zip(axes, starts, ends, steps, strict=True)]
    known = flood.given(source) or flood.given(node.output)
    varying = [] if known is None else [axis for axis, n in enumerate(known.gain.shape) if n > 1]
    relevant = [(axis, span) for axis, span in cut if axis in varying]
    if not relevant:
        ways = pass_moved(node, flood, lambda array, _: array, lambda array, _: array)
        return ways if isinstance(ways, Kept) else [*ways, *_embedded(node, flood, cut, source.shape)]
    axis, span = relevant[0]
    size = source.shape[axis]
    if len(relevant) > 1 or not isinstance(size, int):
        return Kept("unknown-shape", f"Slice {node.name!r} cuts an axis of unknown size, or several")
    return _select(node, flood, axis, np.arange(size)[span])


def _embedded(node: Node, flood: Flood, cut: list[tuple[int, slice]], shape: Shape) -> list[Demands]:
    """A second way to carry a slice's map back: on the part that is cut out, the rest untouched."""
    source, after = node.inputs[0], flood.given(node.output)
    assert source is not None
    axis, span = cut[0] if len(cut) == 1 else (0, slice(0))
    size = shape[axis]
    if after is None or flood.given(source) is not None or len(cut) != 1 or not isinstance(size, int):
        return []
    picked = np.arange(size)[span]

    def back(array: Array, fill: float) -> Array:
        return _scattered(np.broadcast_to(array, _with(array.shape, axis, len(picked))), axis, picked, size, fill)

    try:
        return [[(source, moved(after, len(shape), back))]]
    except Unmovable:
        return []


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _select(node: Node, flood: Flood, axis: int, picked: NDArray[np.integer]) -> Spread:
    """Entries ``picked`` along ``axis``; those not picked carry no map."""
    source = node.inputs[0]
    assert source is not None
    assert source.shape is not None
    size = source.shape[axis]

    def forward(array: Array, _: float) -> Array:
        return np.take(array, picked if array.shape[axis] > 1 else np.zeros_like(picked), axis)

    def backward(array: Array, fill: float) -> Array:
        behind = array.shape[axis + picked.ndim :]
        lead = array.shape[:axis]
        spans = array.shape[axis : axis + picked.ndim]
        if all(n == 1 for n in spans):
            return array.reshape((*lead, 1, *behind))
        if not isinstance(size, int):
            raise Unmovable("the size of its axis is not known")
        full = np.broadcast_to(array, (*lead, *picked.shape, *behind)).reshape((*lead, picked.size, *behind))
        return _scattered(full, axis, picked.reshape(-1), size, fill)

    return pass_moved(node, flood, forward, backward)


def _scattered(array: Array, axis: int, picked: NDArray[np.integer], size: int, fill: float) -> Array:
    """Entries put back where they were picked from; one that was picked twice must come back the same."""
    result = np.full(_with(array.shape, axis, size), fill)
    place = [slice(None)] * array.ndim
    place[axis] = picked % size  # type: ignore[call-overload]
    result[tuple(place)] = array
    if not np.array_equal(np.take(result, picked, axis), array):
        raise Unmovable("an entry that it repeats would need two different maps")
    return result


def _space_to_depth(node: Node, flood: Flood) -> Spread:
    """Blocks of positions become channels: the map of a channel is repeated for each of them."""
    block = node.attr("blocksize", 1) ** 2
    crd = node.attr("mode", "DCR") == "CRD"

    def spread(array: Array, _: float) -> Array:
        _only_channels(array)
        if array.shape[1] == 1:
            return array
        return np.repeat(array, block, axis=1) if crd else np.concatenate([array] * block, axis=1)

    def gather(array: Array, _: float) -> Array:
        _only_channels(array)
        if array.shape[1] == 1:
            return array
        channels = array.shape[1] // block
        order = (array.shape[0], channels, block) if crd else (array.shape[0], block, channels)
        split = np.moveaxis(array.reshape(*order, *array.shape[2:]), 2 if crd else 1, 0)
        if (split != split[0]).any():
            raise Unmovable("it puts channels with different maps into one")
        first: Array = split[0]
        return first

    deep = node.op == "SpaceToDepth"
    return pass_moved(node, flood, spread if deep else gather, gather if deep else spread)


def _only_channels(array: Array) -> None:
    if any(size != 1 for size in array.shape[2:]):
        raise Unmovable("it rearranges the positions along which the map varies")


def _concat(node: Node, flood: Flood) -> Spread:
    """Along the axis: a piece of the output's map to each input; along others: the same map to all."""
    values = [value for value in node.inputs if value is not None]
    target = node.output
    rank = target.rank
    if rank is None:
        return Kept("unknown-shape", f"the rank of {target.name!r} is not known")
    axis = node.attr("axis", 1) % rank
    return _parts(node, flood, target, values, axis)


def _split(node: Node, flood: Flood) -> Spread:
    source = node.inputs[0]
    assert source is not None
    if source.rank is None or None in node.outputs:
        return Kept("unknown-shape", f"the rank of {source.name!r}, or an output of {node.name!r}, is not known")
    return _parts(node, flood, source, node.live_outputs, node.attr("axis", 0) % source.rank)


def _parts(node: Node, flood: Flood, whole: Value, parts: Sequence[Value], axis: int) -> Spread:
    """A whole and its parts along ``axis``: either side's maps determine the other's."""
    constants = node.graph.constants
    given = flood.given(whole)
    maps = [flood.given(part) for part in parts]
    sizes = [None if part.shape is None else part.shape[axis] for part in parts]
    known = [map_ for map_ in (given, *maps) if map_ is not None]
    alike = all(map_.gain.shape[axis : axis + 1] in ((), (1,)) and map_.agrees(known[0]) for map_ in known)
    everywhere = [(v, known[0]) for v in (whole, *parts) if flood.given(v) is None and not constants.is_constant(v)]
    if alike and (given is not None or None not in maps):
        return [everywhere]
    lengths = [size for size in sizes if isinstance(size, int)]
    if len(lengths) < len(sizes) or whole.rank is None:
        if alike:
            return [everywhere]
        return Kept("unknown-shape", f"the sizes that {node.op} {node.name!r} works with are not known")
    if given is not None:
        pieces = _pieces(given, whole.rank, axis, lengths)
        clash = any(m is not None and not m.agrees(piece) for m, piece in zip(maps, pieces, strict=True))
        if clash:
            return Kept("consumers", f"{node.op} {node.name!r} would need two different maps")
        demands = zip(parts, pieces, strict=True)
        return [[(v, m) for v, m in demands if flood.given(v) is None and not constants.is_constant(v)]]
    filled = [Affine.of(1.0, 0.0) if map_ is None else map_ for map_ in maps]
    joined = Affine.of(
        _joined([m.gain for m in filled], whole.rank, axis, lengths),
        _joined([m.shift for m in filled], whole.rank, axis, lengths),
    )
    rest = [(v, m) for v, m in zip(parts, filled, strict=True) if flood.given(v) is None]
    ways: list[Demands] = [[(whole, joined), *((v, m) for v, m in rest if not constants.is_constant(v))]]
    return [*ways, everywhere] if alike else ways


def _pieces(map_: Affine, rank: int, axis: int, sizes: list[int]) -> list[Affine]:
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
        [np.broadcast_to(array, _with(shape, axis, size)) for array, size in zip(full, sizes, strict=True)], axis=axis
    )


def _rewrite_concat(node: Node, gauge: Callable[[Value], Affine]) -> Rewrite:
    """Constants among the inputs take their piece of the output's map."""
    constants, rank = node.graph.constants, node.output.rank
    fixed = [i for i, value in enumerate(node.inputs) if value is not None and constants.is_constant(value)]
    map_ = gauge(node.output)
    if not fixed or map_.is_identity:
        return Rewrite()
    assert rank is not None
    axis = node.attr("axis", 1) % rank
    if map_.gain.shape[axis : axis + 1] in ((), (1,)):
        return Rewrite({(node, i): map_(constant(node, i)) for i in fixed})
    sizes = [value.shape[axis] for value in node.inputs if value is not None and value.shape is not None]
    pieces = _pieces(map_, rank, axis, [size for size in sizes if isinstance(size, int)])
    return Rewrite({(node, i): pieces[i](constant(node, i)) for i in fixed})


_ORDER = "moves with the entries; it must come out constant along whole axes"

RULES = {
    "Transpose": Rule("moves with the axes", "moves with the axes", _transpose),
    "Reshape": Rule(_ORDER, _ORDER, _reshape),
    "Flatten": Rule(_ORDER, _ORDER, _reshape),
    "Squeeze": Rule(_ORDER, _ORDER, _reshape),
    "Unsqueeze": Rule(_ORDER, _ORDER, _reshape),
    "Expand": Rule("if it does not vary along what is repeated", "passes", _expand),
    "Gather": Rule("to the entries picked by constant indices", "picked with the entries", _gather),
    "Slice": Rule("to the entries cut out by constant bounds", "cut with the entries", _slice),
    "SpaceToDepth": Rule("if the same for all positions of a block", "repeated for each position", _space_to_depth),
    "DepthToSpace": Rule("repeated for each position (DCR and CRD)", "if the same for a block", _space_to_depth),
    "Concat": Rule(
        "a piece to each input; along other axes the same to all",
        "joined; a constant input takes its piece",
        _concat,
        _rewrite_concat,
    ),
    "Split": Rule("joined from the pieces", "a piece to each output", _split),
}
