"""Sums of computed values, and products of their entries: gains per class, shifts together."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned
from bnfold.verification.equivalence.semantics.views import Sizes, along_last, sizes_of, varies_along_last, viewed

PLAIN = (np.ones(()), np.zeros(()), np.zeros(()), np.zeros(()))
"""Gain, shift and their errors of a value that is its class's own."""


def add(interpreter: Interpreter, node: Node) -> bool:
    """Add, Sub, Sum and Mean: gains per class, shifts together; constants beside values are shifts."""
    if _is_integer(node) or None in node.inputs:
        return False
    part = 1.0 / len(node.inputs) if node.op == "Mean" else 1.0
    terms: list[tuple[AbstractValue, float, Value | None]] = []
    held, eps = _constant_terms(node), interpreter.eps(node.output)
    for position, value in enumerate(node.inputs):
        if position not in held:
            sign = -part if node.op == "Sub" and position == 1 else part
            terms.append((interpreter.state_of(value), sign, value))
    if node.opset < 7 and node.attr("broadcast", 0):
        return False
    state = total_of(interpreter, node, terms)
    for data in held.values():
        shift = part * data
        state = state.shifted(shift, LOOSE * eps * np.abs(shift))
    interpreter.states[node.output] = state
    return True


def _constant_terms(node: Node) -> dict[int, Array]:
    """Return the constants of a Sum or Mean by index, in the rank of the result; none if they may enlarge a value."""
    if node.op not in ("Sum", "Mean"):
        return {}
    held = [i for i, value in enumerate(node.inputs) if node.graph.constants.is_constant(value)]
    data = [value for i, value in enumerate(node.inputs) if i not in held]
    rank = node.output.rank
    if rank is None or not data or any(value is None or value.rank is None for value in node.inputs):
        return {}
    if any(may_widen(node.inputs[i], data) for i in held):
        return {}
    return {i: laid_out(constant(node, i), rank) for i in held}


def laid_out(array: NDArray[Any], rank: int) -> Array:
    """Return a constant operand laid out like a transform of a result of ``rank`` axes."""
    return Affine.of(1.0, array.astype(np.float64).reshape((1,) * (rank - array.ndim) + array.shape)).shift


def _is_integer(node: Node) -> bool:
    """Return True for integers: they wrap around, and their division rounds."""
    types = (value.dtype for value in (node.output, *node.inputs) if value is not None)
    return any(dtype is not None and dtype.kind in "iub" for dtype in types)


def total_of(
    interpreter: Interpreter,
    node: Node,
    terms: list[tuple[AbstractValue, float, Value | None]],
    rank: int | None = None,
) -> AbstractValue:
    """Return the sum of states, each with its sign and its value; ``rank`` if all are known to have one."""
    common, rank = rank, rank or node.output.rank
    eps = interpreter.eps(node.output)
    gains: dict[int, tuple[Array, Array]] = {}
    values: dict[int, list[Value | None]] = {}
    shift, moved = np.zeros(()), np.zeros(())
    for state, sign, value in terms:
        arrays = lifted_to(state, common or (None if value is None else value.rank), rank)
        if arrays is None:
            state, arrays = AbstractValue(interpreter.materialized(node, state, eps)), PLAIN
        gain, offset, gain_error, shift_error = arrays
        old, old_error = gains.get(state.base, (np.zeros(()), np.zeros(())))
        gains[state.base] = sum_of(old, sign * gain), sum_of(old_error, gain_error)
        values.setdefault(state.base, []).append(value)
        shift = sum_of(shift, sign * offset)
        moved = sum_of(moved, shift_error, LOOSE * eps * np.abs(offset))
    bases = _relevant_bases(gains, values)
    if len(bases) == 1:
        gain, error = gains[bases[0]]
        return AbstractValue(bases[0], Affine.of(*aligned(gain, shift)), error, moved)
    numbers = Numbers.stacked([gains[base][0] for base in bases], [gains[base][1] for base in bases])
    state = interpreter.made(node, ("sum", tuple(bases)), lambda: numbers, "any")
    return state.shifted(shift, moved)


def _relevant_bases(gains: dict[int, tuple[Array, Array]], values: dict[int, list[Value | None]]) -> list[int]:
    """Return the classes that a sum depends on, in order: none of gain 0, unless it may give the sum its shape."""
    alive = sorted(base for base, (gain, _) in gains.items() if gain.any()) or sorted(gains)[:1]
    kept = [value for base in alive for value in values[base]]
    dead = (base for base in gains if base not in alive)
    return sorted([*alive, *(base for base in dead if any(may_widen(value, kept) for value in values[base]))])


def may_widen(value: Value | None, others: list[Value | None]) -> bool:
    """Return True unless one of ``others`` is known to have every axis of ``value``, at its length."""
    shape = None if value is None else value.shape
    if shape is None:
        return True
    for other in others:
        whole = None if other is None else other.shape
        if whole is not None and len(whole) >= len(shape):
            pairs = zip(shape, whole[len(whole) - len(shape) :], strict=True)
            if all(size == 1 or (size is not None and size == size2) for size, size2 in pairs):
                return False
    return True


def sum_of(*arrays: Array) -> Array:
    """Return the sum of arrays that are laid out like transforms."""
    total = np.zeros(())
    for array in arrays:
        first, second = aligned(total, array)
        total = np.asarray(first + second)
    return total


def lifted_to(state: AbstractValue, own: int | None, rank: int | None) -> tuple[Array, Array, Array, Array] | None:
    """Return a state's four arrays, laid out for a result of ``rank`` axes; None if the axes aren't known."""
    arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
    if all(array.ndim == 0 for array in arrays):
        return arrays
    if own is None or rank is None:
        return None
    lead = (1,) * (rank - own)
    return tuple(array.reshape(lead + array.shape) if array.ndim else array for array in arrays)  # type: ignore[return-value]


def product(interpreter: Interpreter, node: Node) -> bool:
    """Mul and Div of two computed values: the gains of both come out."""
    if _is_integer(node):
        return False
    if len(node.inputs) != 2 or (node.opset < 7 and node.attr("broadcast", 0)):
        return False
    factors = [(interpreter.state_of(value), None if value is None else value.rank) for value in node.inputs]
    interpreter.states[node.output] = product_of(interpreter, node, node.op, factors)
    return True


def product_of(
    interpreter: Interpreter,
    node: Node,
    op: str,
    factors: list[tuple[AbstractValue, int | None]],
    rank: int | None = None,
) -> AbstractValue:
    """Return the product (``op`` Mul) or the quotient (Div) of two states, each with the rank of its value.

    ``rank`` is that of the result, by default of what ``node`` makes.

    That of two views of one shape is a view of the product of what they show.
    """
    shown = [view for state, _ in factors if (view := interpreter.views.get(state.base)) is not None]
    target = sizes_of(interpreter, node.output)
    if len(shown) == len(factors) and target is not None and _is_alike(factors, shown, target):
        inner: list[tuple[AbstractValue, int | None]] = []
        for (root, sizes), (state, _) in zip(shown, factors, strict=True):
            inner.append((along_last(root, state, len(sizes)), len(sizes)))
        made = product_of(interpreter, node, op, inner, len(shown[0][1]))
        base = viewed(interpreter, node, made.base, shown[0][1], target)
        if base is not None:
            return along_last(base, made, len(target))
    eps, rank = interpreter.eps(node.output), rank or node.output.rank
    gain, error, bases = np.ones(()), np.zeros(()), []
    for position, (factor, own_rank) in enumerate(factors):
        state = interpreter.unshifted(node, factor, eps)
        lifted = lifted_to(state, own_rank, rank)
        if lifted is None or (op == "Div" and position == 1 and (lifted[0] == 0).any()):
            state, lifted = AbstractValue(interpreter.materialized(node, state, eps)), PLAIN
        own, own_error = aligned(lifted[0], lifted[2])
        relative = own_error / np.where(own == 0, 1.0, np.abs(own))
        if op == "Div" and position == 1:
            own = 1.0 / own
        a, b, c, d = aligned(gain, own, error, relative)
        gain, error = a * b, c + d
        bases.append(state.base)
    if op == "Mul":
        bases.sort()
    state = interpreter.made(node, (op, "of values", tuple(bases)))
    size, error = aligned(np.abs(gain), error)
    return AbstractValue(state.base, Affine.of(gain, 0.0), size * error)


def _is_alike(factors: list[tuple[AbstractValue, int | None]], shown: list[tuple[int, Sizes]], target: Sizes) -> bool:
    """Return True if all are views of values of the same sizes, as large as what is made of them."""
    sizes = shown[0][1]
    if any(other != sizes for _, other in shown) or None in sizes or None in target:
        return False
    if prod(n or 0 for n in sizes) != prod(n or 0 for n in target):
        return False
    return all(rank == len(target) and varies_along_last(state, sizes, target) for state, rank in factors)


SEMANTICS = {"Sum": add, "Mean": add}
