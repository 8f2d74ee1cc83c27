"""Operators whose result is one of several values at each place: Max, Min, Where, and the Scatters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, constant_shape
from bnfold.numerics.rounding import is_float
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, Scale, aligned
from bnfold.verification.equivalence.semantics.sums import laid_out, lifted_to, may_widen

MOST = 1024
"""Entries of a constant by which a class may be distinguished."""

Parts = tuple[Array, Array, Array, Array]
"""Gain, shift and their errors, laid out like a transform of the result."""


def chosen(interpreter: Interpreter, node: Node, reads: Sequence[int], scale: Scale) -> bool:
    """Read a node that gives one of its operands at each place, by itself and the inputs ``reads``.

    What comes out are the values up to a factor for all, plus a shift for all: per channel, the gains and the distances
    of the shifts, and of the constants, from the first shift make the class.
    """
    rank, dtype = node.output.rank, node.output.dtype
    values = [(i, value) for i, value in enumerate(node.inputs) if i not in reads and value is not None]
    data = [value for _, value in values if not node.graph.constants.is_constant(value)]
    if rank is None or dtype is None or not is_float(dtype) or not data or len(values) + len(reads) < len(node.inputs):
        return False
    if any(may_widen(value, list(data)) for _, value in values if value not in data):
        return False
    terms: list[tuple[int, AbstractValue, Parts]] = []
    for index, value in values:
        state = interpreter.state_of(value)
        arrays = lifted_to(state, value.rank, rank) if value in data else None
        if value in data and arrays is None:
            return False
        if arrays is not None:
            terms.append((index, state, arrays))
    held = {index: [laid_out(constant(node, index), rank)] for index, value in values if value not in data}
    return _choice(interpreter, node, reads, scale, terms, held)


def _choice(
    interpreter: Interpreter,
    node: Node,
    reads: Sequence[int],
    scale: Scale,
    terms: list[tuple[int, AbstractValue, Parts]],
    held: dict[int, list[Array]],
    shapes: tuple[object, ...] = (),
) -> bool:
    eps = LOOSE * interpreter.eps(node.output)
    if not reads:  # the operands of Max and Min have no order
        terms.sort(key=lambda term: term[1].base)
    _, _, (_, shift, _, shift_error) = terms[0]
    numbers, bars = [], []
    for _, _, (gain, own, gain_error, own_error) in terms:
        mine, first, error, other = aligned(own, shift, own_error, shift_error)
        numbers += [gain, mine - first]
        bars += [gain_error, error + other + eps * (np.abs(mine) + np.abs(first))]
    bars[1] = np.zeros(())
    for bound in (bound for bounds in held.values() for bound in bounds):
        bound, first, other = aligned(bound, shift, shift_error)
        size = np.where(np.isfinite(bound), np.abs(bound), 0.0)
        numbers.append(bound - first)
        bars.append(other + eps * (size + np.abs(first)))
    places = tuple(index for index, _, _ in terms) if reads else len(terms)
    conditions = tuple(_class_of(interpreter, node, node.inputs[index]) for index in reads)
    key = (
        node.op, "one of", places, tuple(state.base for _, state, _ in terms), conditions, len(held), shapes,
        interpreter.attributes(node),
    )  # fmt: skip
    made = interpreter.made(node, key, lambda: Numbers.stacked(numbers, bars), scale)
    interpreter.states[node.output] = made.shifted(shift, shift_error)
    return True


def _class_of(interpreter: Interpreter, node: Node, value: Value | None) -> int:
    """Return the class of a condition or of indices, as they are."""
    return interpreter.materialized(node, interpreter.state_of(value), interpreter.eps(value))


def scatter(interpreter: Interpreter, node: Node) -> bool:
    """Scatter, ScatterElements, ScatterND: entries of the updates in the place of the data's, the same at all places.

    Only what is alike for all entries is read as a transform: per axis on which the updates are as wide as the data.
    """
    source, indices, updates = (node.input(index) for index in range(3))
    if node.attr("reduction", "none") != "none" or source is None or indices is None or updates is None:
        return False
    rank, own = source.rank, updates.rank
    if rank is None or own is None or source.shape is None or updates.shape is None or indices.shape is None:
        return False
    if node.op == "ScatterND":
        depth = indices.shape[-1] if indices.shape else None
        if not isinstance(depth, int):
            return False
        picked, lead = set(range(depth)), own - (rank - depth)
    else:
        picked, lead = {node.attr("axis", 0) % rank}, 0
        picked |= {
            axis for axis in range(rank) if source.shape[axis] != updates.shape[axis] or source.shape[axis] is None
        }
    terms: list[tuple[int, AbstractValue, Parts]] = []
    held: dict[int, list[Array]] = {}
    for index, value in ((0, source), (2, updates)):
        before = lead if index == 2 and node.op == "ScatterND" else None
        if node.graph.constants.is_constant(value):
            entries = _entries(constant(node, index).astype(np.float64), before, picked)
            if len(entries) > MOST:
                return False
            held[index] = entries
            continue
        state = interpreter.state_of(value)
        arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
        moved = tuple(_in_place(array, before, picked, bounds=place > 1) for place, array in enumerate(arrays))
        if any(array is None for array in moved):
            return False
        terms.append((index, state, moved))  # type: ignore[arg-type]
    return bool(terms) and _choice(
        interpreter, node, (1,), "any", terms, held, tuple(constant_shape(node, index) for index in held)
    )


def _entries(array: Array, lead: int | None, picked: set[int]) -> list[Array]:
    """A constant operand as the entries that each position of the other axes has, each laid out like a transform."""
    axes = list(range(lead)) if lead is not None else sorted(picked)
    last = np.moveaxis(array, axes, range(-len(axes), 0)).reshape(
        *(size for axis, size in enumerate(array.shape) if axis not in axes), -1
    )
    kept = last.shape[:-1]
    if lead is not None:
        shape = [*(1 for _ in picked), *kept]
    else:
        sizes = iter(kept)
        shape = [1 if axis in picked else next(sizes) for axis in range(array.ndim)]
    return [last[..., place].reshape(shape) for place in range(last.shape[-1])]


def _in_place(array: Array, lead: int | None, picked: set[int], *, bounds: bool) -> Array | None:
    """An array laid out like a transform of an operand as one of the result; None if it varies where entries move.

    Of ``bounds`` the largest counts.
    """
    moving = picked if lead is None else set(range(lead))
    if any(size > 1 and axis in moving for axis, size in enumerate(array.shape)):
        if not bounds:
            return None
        array = array.max(axis=tuple(axis for axis in moving if axis < array.ndim), keepdims=True)
    if lead is not None and array.ndim:
        array = array.reshape((*(1,) * len(picked), *array.shape[lead:]))
    return array


SEMANTICS = dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), scatter)
