"""Operators that pick or replace entries: GatherElements, GatherND, ReverseSequence, Tile; Where and the Scatters.

Which entries they pick, they read from other inputs, mostly at run time. A transform passes that does not vary along
the axes where they pick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape, integers
from bnfold.numerics.affine import Affine
from bnfold.rules.identity import parameter_refusal
from bnfold.rules.layout import Array, Move, Unmovable, moved, pass_moved
from bnfold.rules.operands import aligned_constant, stretched, with_shape_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Alternatives, Rewrite, Rule, RuleContext, Transforms, not_constant


def _same_along(node: Node, axes: set[int], *shapes: tuple[object, ...] | None) -> Move:
    """No move, of an array that is the same along ``axes`` and varies elsewhere only where all shapes agree."""

    def move(array: Array, _: float) -> Array:
        for axis, size in enumerate(array.shape):
            if size > 1 and axis in axes:
                raise Unmovable("the transform varies along an axis whose entries it picks")
            if size > 1 and any(shape is None or shape[axis] != size for shape in shapes):
                raise Unmovable("it may leave out entries of the transform")
        return array

    return move


def _gather_elements(node: Node, context: RuleContext) -> Alternatives:
    source = node.inputs[0]
    if source is None or source.rank is None:
        return Refusal("unknown-shape", f"the rank of the input of {node.label} is not known")
    move = _same_along(node, {node.attr("axis", 0) % source.rank}, source.shape, node.output.shape)
    return pass_moved(node, context, move, move)


def _reverse_sequence(node: Node, context: RuleContext) -> Alternatives:
    move = _same_along(node, {node.attr("time_axis", 0)})
    return pass_moved(node, context, move, move)


def _gather_nd(node: Node, context: RuleContext) -> Alternatives:
    """The last axis of the indices says where, from axis ``batch_dims`` on; the axes behind stay."""
    source, indices = node.inputs[0], node.input(1)
    shape = None if indices is None else indices.shape
    if source is None or source.rank is None or not shape or not isinstance(shape[-1], int):
        return Refusal("unknown-shape", f"how many axes {node.label} picks from is not known")
    batch = node.attr("batch_dims", 0)
    picked = range(batch, batch + shape[-1])
    added = len(shape) - 1 - batch

    def forward(array: Array, _: float) -> Array:
        if any(array.shape[axis] > 1 for axis in picked):
            raise Unmovable("the transform varies along an axis whose entries it picks")
        return array.reshape((*array.shape[:batch], *(1,) * added, *array.shape[picked.stop :]))

    def backward(array: Array, _: float) -> Array:
        if any(size > 1 for size in array.shape[batch : batch + added]):
            raise Unmovable("the transform varies over the entries that it picks")
        return array.reshape((*array.shape[:batch], *(1,) * len(picked), *array.shape[batch + added :]))

    return pass_moved(node, context, forward, backward)


def _tile(node: Node, context: RuleContext) -> Alternatives:
    """The whole is repeated: a transform with it, or the same for each repetition."""
    repeats, source = integers(node, "repeats", 1), node.inputs[0]
    if repeats is None or node.opset < 6 or source is None or source.shape is None:
        return Refusal("unknown-shape", f"how often {node.label} repeats its input is not known")
    whole = source.shape

    def forward(array: Array, _: float) -> Array:
        return np.tile(array, [count if size > 1 else 1 for count, size in zip(repeats, array.shape, strict=True)])

    def backward(array: Array, _: float) -> Array:
        sizes = [whole[axis] if size > 1 else 1 for axis, size in enumerate(array.shape)]
        if any(not isinstance(size, int) for size in sizes):
            raise Unmovable("the size of what it repeats is not known")
        first: Array = array[tuple(slice(size) for size in sizes)]
        if not np.array_equal(forward(first, 0.0), array):
            raise Unmovable("an entry that it repeats would need two different transforms")
        return first

    return pass_moved(node, context, forward, backward)


@dataclass(frozen=True)
class _Part:
    """An operand some of whose entries come out: how a transform moves from it to the output, and back."""

    forward: Move
    backward: Move


def _parts(node: Node) -> Mapping[int, _Part] | Refusal:
    """The operands of Where or a Scatter that hold values, by index."""
    if node.op == "Where":
        return {index: _Part(lambda array, _: array, lambda array, _: array) for index in (1, 2)}
    source, indices, updates = node.inputs[0], node.input(1), node.input(2)
    if source is None or indices is None or updates is None or None in (source.rank, indices.rank, updates.rank):
        return Refusal("unknown-shape", f"the ranks of the inputs of {node.label} are not known")
    if node.attr("reduction", "none") != "none":
        return Refusal("nonlinear", f"{node.label} combines entries with those that are there")
    assert source.rank is not None and updates.rank is not None
    if node.op != "ScatterND":
        move = _same_along(node, {node.attr("axis", 0) % source.rank}, source.shape, updates.shape)
        return {0: _Part(move, move), 2: _Part(move, move)}
    depth = None if indices.shape is None else indices.shape[-1]
    if not isinstance(depth, int):
        return Refusal("unknown-shape", f"how many axes {node.label} picks from is not known")
    picked, lead = depth, updates.rank - (source.rank - depth)
    plain = _same_along(node, set(range(picked)))

    def backward(array: Array, fill: float) -> Array:
        return plain(array, fill).reshape((*(1,) * lead, *array.shape[picked:]))

    def forward(array: Array, _: float) -> Array:
        if any(size > 1 for size in array.shape[:lead]):
            raise Unmovable("the transform varies over the entries that it replaces")
        return array.reshape((*(1,) * picked, *array.shape[lead:]))

    return {0: _Part(plain, plain), 2: _Part(forward, backward)}


def _propagate_choice(node: Node, context: RuleContext) -> Alternatives:
    """Whatever entry comes out, it carries the output's transform; constants are transformed too."""
    parts = _parts(node)
    if isinstance(parts, Refusal):
        return parts
    values = {index: node.inputs[index] for index in parts}
    data = {i: v for i, v in values.items() if v is not None and not node.graph.constants.is_constant(v)}
    try:
        found = [_moved(value, context, parts[index].forward) for index, value in data.items()]
        known = [transform for transform in (context.proposed(node.output), *found) if transform is not None]
        if not known:
            return parameter_refusal(node)
        transform = known[0]
        if any(not other.agrees(transform) for other in known[1:]):
            return Refusal("consumers", f"the operands of {node.label} would need different transforms")
        wanted = {index: _back(node, transform, parts[index]) for index in parts}
    except Unmovable as error:
        return Refusal("channel-axis", f"{node.label}: {error}")
    if node.op == "Where" and (refusal := stretched(node, list(data.values()), [transform])):
        return refusal
    for index in parts:
        if index not in data and isinstance(held := _held(node, index, data), Refusal):
            return held
    assigned = {**{value: wanted[index] for index, value in data.items()}, node.output: transform}
    return [[(value, one) for value, one in assigned.items() if context.proposed(value) is None]]


def _moved(value: Value, context: RuleContext, move: Move) -> Affine | None:
    transform = context.proposed(value)
    if transform is None or transform.gain.ndim == 0:
        return transform
    if value.rank is None:
        raise Unmovable("the rank of its input is not known")
    return moved(transform, value.rank, move)


def _back(node: Node, transform: Affine, part: _Part) -> Affine:
    if transform.gain.ndim == 0:
        return transform
    if node.output.rank is None:
        raise Unmovable("the rank of its output is not known")
    return moved(transform, node.output.rank, part.backward)


def _held(node: Node, index: int, data: Mapping[int, Value]) -> Array | Refusal:
    """A constant operand, laid out so that a transform of the output applies."""
    if refusal := not_constant(node, index):
        return refusal
    if node.op != "Where":
        return constant(node, index).astype(np.float64)
    for one in data:
        if data[one].rank == node.output.rank:
            return aligned_constant(node, one, index)
    return Refusal("unknown-shape", f"the rank of the output of {node.label} is not known")


def _rewrite_choice(node: Node, current: Transforms) -> Rewrite:
    parts = _parts(node)
    assert not isinstance(parts, Refusal)
    data = {
        index: value
        for index in parts
        if (value := node.inputs[index]) is not None and not node.graph.constants.is_constant(value)
    }
    rewrite = Rewrite()
    for index in parts:
        if index not in data:
            old = _held(node, index, data)
            assert not isinstance(old, Refusal)
            new = _back(node, current(node.output), parts[index])(old)
            if not (new == old).all():  # zeros stay zeros
                rewrite.constants[node, index] = with_shape_of(new, constant_shape(node, index))
    return rewrite


_PICKS = "any transform that does not vary along the axes where entries are picked"
_CHOICE = "any transform, the same for all values; constants are transformed too"
_SCATTER = Rule(
    f"{_PICKS}, the same for both values, constants too; no reduction",
    f"{_PICKS}, the same for both values, constants too; no reduction",
    _propagate_choice,
    _rewrite_choice,
)

RULES = {
    "GatherElements": Rule(_PICKS, _PICKS, _gather_elements),
    "GatherND": Rule(_PICKS, _PICKS, _gather_nd),
    "ReverseSequence": Rule(_PICKS, _PICKS, _reverse_sequence),
    "Scatter": _SCATTER,
    "ScatterElements": _SCATTER,
    "ScatterND": _SCATTER,
    "Tile": Rule("the same for each repetition", "repeated with the entries", _tile),
    "Where": Rule(_CHOICE, _CHOICE, _propagate_choice, _rewrite_choice),
}
