"""The same entries in another order or shape: what a chain of reshapes, or of transposes, comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from bnfold.ir.graph import Node, Shape, Value
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import Array, aligned

Sizes = tuple[int | None, ...]


def sizes_of(interpreter: Interpreter, value: Value | None) -> Sizes | None:
    """Return the sizes of a value's axes, None for at most one that is not known; None if more are unknown."""
    return None if value is None else known_sizes(interpreter.shape(value))


def known_sizes(shape: Shape | None) -> Sizes | None:
    """Return a shape whose entries are in a known place: at most one size is not a number."""
    if shape is None:
        return None
    found = tuple(size if isinstance(size, int) else None for size in shape)
    return found if found.count(None) <= 1 and 0 not in found else None


def viewed(interpreter: Interpreter, node: Node, base: int, before: Sizes | None, after: Sizes | None) -> int | None:
    """Return the class of the entries of ``base``, of sizes ``before``, in the shape ``after``; None if not known.

    A view of a view is a view of the first value, and the first value where it has its shape.
    """
    root, sizes = interpreter.views.get(base, (base, before))
    if sizes is None or after is None:
        return None
    if None in after and None not in sizes:
        known = prod(size for size in after if size is not None)
        after = tuple(prod(n or 0 for n in sizes) // known if size is None else size for size in after)
    if sizes == after:
        return root
    made = interpreter.made(node, ("view", root, after)).base
    interpreter.views.setdefault(made, (root, sizes))
    return made


@dataclass(frozen=True)
class Matrix:
    """A value as the matrix of its rows, the entries along its last axis: its class, and the sizes of the value.

    ``rest`` is the value's state in that shape; None where its sizes are not known.
    """

    base: int
    sizes: Sizes
    rest: AbstractValue | None

    def restored(self, interpreter: Interpreter, node: Node, made: AbstractValue, outer: int) -> AbstractValue:
        """Return a product with the matrix, of ``outer`` columns, in the shape that the value had."""
        after = (*self.sizes[:-1], outer)
        base = viewed(interpreter, node, made.base, (_count(after[:-1]), outer), after)
        assert base is not None
        return along_last(base, made, len(after))


def as_matrix(
    interpreter: Interpreter, node: Node, state: AbstractValue, shape: Shape | None, inner: int
) -> Matrix | None:
    """Return ``state``, of a value of ``shape``, as a matrix of ``inner`` columns; None where that is not known.

    A product along the last axis is the same for each shape of the axes before it. That is how simplifiers make a Gemm
    of a MatMul and an Add: Reshape, Gemm, Reshape.
    """
    if not shape or (isinstance(shape[-1], int) and shape[-1] != inner):
        return None
    sizes = known_sizes((*shape[:-1], inner))
    if sizes is None or len(sizes) < 2:
        return None
    root, _ = interpreter.views.get(state.base, (state.base, None))
    base = interpreter.made(node, ("rows", root, inner)).base
    rows = _count(sizes[:-1])
    if rows is None:
        return Matrix(base, sizes, None)

    def moved(array: Array) -> Array:
        if array.size == 1:
            return array.reshape(())
        full = np.broadcast_to(array.reshape(array.shape + (1,) * (len(sizes) - array.ndim)), [n or 0 for n in sizes])
        return full.reshape(rows, inner)

    affine = Affine.of(*aligned(moved(state.affine.gain), moved(state.affine.shift)))
    return Matrix(base, sizes, AbstractValue(base, affine, moved(state.gain_error), moved(state.shift_error)))


def _count(sizes: Sizes) -> int | None:
    """Return the product of sizes, None where one is not known."""
    return None if None in sizes else prod(size or 0 for size in sizes)


def through_view(
    interpreter: Interpreter, node: Node, state: AbstractValue, made: Callable[[AbstractValue], AbstractValue]
) -> AbstractValue:
    """Return what an operator that acts on each entry by itself makes of ``state``: a view of what it makes of a view.

    ``made`` gives its result for a state. One that varies along the last axis may do so if that axis is the same.
    """
    root, sizes = interpreter.views.get(state.base, (state.base, None))
    own = sizes_of(interpreter, node.output)
    if sizes is None or own is None:
        return made(state)
    if not varies_along_last(state, sizes, own):
        return made(state)
    result = made(along_last(root, state, len(sizes)))
    base = viewed(interpreter, node, result.base, sizes, own)
    return made(state) if base is None else along_last(base, result, len(own))


def varies_along_last(state: AbstractValue, sizes: Sizes, own: Sizes) -> bool:
    """Return True if a state of sizes ``own`` varies at most along the last axis, and ``sizes`` have that axis too."""
    alike = sizes[-1:] == own[-1:] != (None,)
    return all(array.size <= (array.shape[-1] if alike and array.ndim == len(own) else 1) for array in _arrays(state))


def _arrays(state: AbstractValue) -> tuple[Array, ...]:
    return state.affine.gain, state.affine.shift, state.gain_error, state.shift_error


def along_last(base: int, state: AbstractValue, rank: int) -> AbstractValue:
    """Return the transform of a state that varies along the last axis alone, as one of ``base`` in that many axes."""
    lead = (1,) * (rank - 1)
    gain, shift, error, moved = (a.reshape((*lead, -1)) if a.size > 1 else a.reshape(()) for a in _arrays(state))
    return AbstractValue(base, Affine.of(*aligned(gain, shift)), error, moved)


def is_view(node: Node) -> bool:
    """Return True for a Transpose that leaves the order of all axes longer than 1: it moves no entry."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if node.op != "Transpose" or shape is None:
        return False
    perm = node.attr("perm") or list(range(len(shape)))[::-1]
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def turned(interpreter: Interpreter, node: Node, base: int, perm: tuple[int, ...]) -> int:
    """Return the class of ``base`` with its axes in the order ``perm``; several transposes are one."""
    root, inner = interpreter.turns.get(base, (base, tuple(range(len(perm)))))
    whole = tuple(inner[axis] for axis in perm)
    if whole == tuple(range(len(whole))):
        return root
    made = interpreter.made(node, ("turned", root, whole)).base
    interpreter.turns.setdefault(made, (root, whole))
    return made


def turned_state(interpreter: Interpreter, node: Node, state: AbstractValue, perm: tuple[int, ...]) -> AbstractValue:
    """Return a state with its axes in the order ``perm``."""

    def moved(array: Array) -> Array:
        return np.transpose(array.reshape(array.shape + (1,) * (len(perm) - array.ndim)), perm) if array.ndim else array

    arrays = (state.affine.gain, state.affine.shift, state.gain_error, state.shift_error)
    gain, shift, gain_error, shift_error = map(moved, arrays)
    base = turned(interpreter, node, state.base, perm)
    return AbstractValue(base, Affine.of(gain, shift), gain_error, shift_error)


def repeated_key(node: Node, base: int, repeats: tuple[int, ...] | None) -> tuple[object, ...] | None:
    """Return what an Expand (``repeats`` None) or a Tile makes of ``base``: by its shape if it only repeats axes of 1.

    None where the sizes are not known, or a Tile repeats longer axes.
    """
    source, target = (None if v is None else v.shape for v in (node.inputs[0], node.output))
    if source is None or target is None or not all(isinstance(size, int) for size in (*source, *target)):
        return None
    before, after = [int(n or 0) for n in source], [int(n or 0) for n in target]
    before = [1] * (len(after) - len(before)) + before
    if len(before) != len(after) or 0 in after:
        return None
    if repeats is not None and any(n != 1 and size != 1 for n, size in zip(repeats, before, strict=True)):
        return None
    if repeats is not None and prod(before) * prod(repeats) != prod(after):
        return None
    return "expanded", base, tuple(after)
