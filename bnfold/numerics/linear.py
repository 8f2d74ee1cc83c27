"""The weights of linear operators, and how they take transforms in.

A linear op ``y = W x + c`` that is to read ``x' = g_x x + h_x`` in place of ``x`` and to produce
``y' = g_y y + h_y`` in place of ``y`` needs::

    W' = g_y W / g_x
    c' = g_y (c - W (h_x / g_x)) + h_y

That one formula (:func:`fold_linear`) serves Conv, ConvTranspose, Gemm and MatMul, seen through a view of
their weights as ``(group, out, in, taps)``. A folded weight is computed in float64 block by block, when it is written:
a model's weights are never in memory together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnfold.numerics.affine import Array
from bnfold.numerics.rounding import rounded

BLOCK = 2**18
"""Elements of a weight that are read and in float64 at a time: with their result they fit into a processor's cache."""

Place = tuple[slice, slice]
"""Groups, and rows of them."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight as it is stored: ``(group, out, in, taps)``, or ``(group, in, out, taps)`` if ``inputs_first``.

    ``part`` reads the elements from one place to another, in the order in which they are stored; what it gives may be
    gone when it is called again.
    """

    part: Callable[[int, int], NDArray[Any]]
    shape: tuple[int, int, int, int]
    inputs_first: bool

    @classmethod
    def of(cls, array: NDArray[Any], *, inputs_first: bool = False) -> Weight:
        """One that is in memory, with its four axes."""
        group, rows, columns, taps = array.shape
        flat = array.reshape(-1)
        return cls(lambda start, stop: flat[start:stop], (group, rows, columns, taps), inputs_first)

    @property
    def outputs(self) -> tuple[int, int]:
        """Groups, and output channels of each."""
        return self.shape[0], self.shape[2 if self.inputs_first else 1]

    def blocks(self) -> Iterator[tuple[Place, NDArray[Any]]]:
        """Pieces of about BLOCK elements, in order: several groups, or some rows of one."""
        groups, rows, columns, taps = self.shape
        row = columns * taps
        together, apart = max(1, BLOCK // max(rows * row, 1)), min(rows, max(1, BLOCK // max(row, 1)))
        for g in range(0, groups, together):
            some = min(together, groups - g)
            for r in range(0, rows, apart):  # all of them where several groups fit
                count = min(apart, rows - r)
                start = (g * rows + r) * row
                block = self.part(start, start + some * count * row)
                yield (slice(g, g + some), slice(r, r + count)), block.reshape(some, count, columns, taps)

    def per_output(self, vector: Array) -> Array:
        """``(group, out)``, so that it broadcasts against the weight."""
        return vector[:, None, :, None] if self.inputs_first else vector[:, :, None, None]

    def per_input(self, vector: Array) -> Array:
        """``(group, in)``, so that it broadcasts against the weight."""
        return vector[:, :, None, None] if self.inputs_first else vector[:, None, :, None]


@dataclass(frozen=True, eq=False)
class Scaled:
    """``weight * gain / divisor``, computed block by block when it is asked for, never all of it in float64.

    ``gain`` is ``(group, out)``, ``divisor`` ``(group, in)``. The result has ``shape`` and ``dtype``, rounded once.
    ``judge`` gets the largest exact size per output channel, ``(group, out)``, after each computation; it may raise.
    """

    weight: Weight
    gain: Array
    divisor: Array | None
    shape: tuple[int, ...]
    dtype: Any = np.float64
    judge: Callable[[Array], None] | None = None

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The result in the order in which it is stored, block by block; each is freed when the next is asked for."""
        gain = self.weight.per_output(self.gain)
        divisor = None if self.divisor is None else self.weight.per_input(self.divisor)
        largest = np.zeros(self.weight.outputs)
        exact, stored = np.empty((0,)), np.empty((0,), self.dtype)
        for place, block in self.weight.blocks():
            if block.shape != exact.shape:
                exact, stored = np.empty(block.shape), np.empty(block.shape, self.dtype)
            np.copyto(exact, block)
            exact *= _at(gain, place) if divisor is None else _at(gain, place) / _at(divisor, place)
            if self.judge is not None:  # with one gain per channel the largest is where the weight's own is
                self._look_at(block if divisor is None else exact, place, largest)
            yield rounded(exact, self.dtype, stored)
        if self.judge is not None:
            self.judge(largest if divisor is not None else largest * np.abs(self.gain))

    def _look_at(self, block: NDArray[Any], place: Place, largest: Array) -> None:
        axes = (1 if self.weight.inputs_first else 2, 3)
        size = np.maximum(block.max(axis=axes), -block.min(axis=axes)).astype(np.float64)
        target = largest[place[0]] if self.weight.inputs_first else largest[place]
        np.maximum(target, size, out=target)

    def losses(self) -> tuple[Array, Array]:
        """Return per output channel, ``(group, out)``, how far rounding moves the weight, and how large it is.

        Both are lengths of a channel's row as the inputs see it that this weight was made for: a divisor enlarges what
        is read in the same proportion as it makes entries smaller.
        """
        gain = self.weight.per_output(self.gain)
        divisor = self.weight.per_input(np.ones((1, 1)) if self.divisor is None else self.divisor)
        moved, size = np.zeros(self.weight.outputs), np.zeros(self.weight.outputs)
        axes = (1 if self.weight.inputs_first else 2, 3)
        for place, block in self.weight.blocks():
            by = _at(divisor, place) if self.divisor is not None else divisor
            exact = block.astype(np.float64) * _at(gain, place) / by
            error = rounded(exact, self.dtype).astype(np.float64) - exact
            target = (place[0],) if self.weight.inputs_first else place
            moved[target] += np.square(error * by).sum(axis=axes)
            size[target] += np.square(exact * by).sum(axis=axes)
        return np.sqrt(moved), np.sqrt(size)

    def largest_per_input(self) -> Array:
        """Return the largest exact size per input channel, ``(group, in)``."""
        gain = self.weight.per_output(self.gain)
        divisor = self.weight.per_input(np.ones((1, 1)) if self.divisor is None else self.divisor)
        inputs = self.weight.shape[1 if self.weight.inputs_first else 2]
        largest = np.zeros((self.weight.shape[0], inputs))
        for place, block in self.weight.blocks():
            by = _at(divisor, place) if self.divisor is not None else divisor
            size = np.abs(block * _at(gain, place) / by).max(axis=(2, 3) if self.weight.inputs_first else (1, 3))
            target = largest[place] if self.weight.inputs_first else largest[place[0]]
            np.maximum(target, size, out=target)
        return largest

    def array(self) -> NDArray[Any]:
        """The result as a whole."""
        made = np.empty(math.prod(self.shape), self.dtype)
        at = 0
        for block in self.blocks():
            made[at : at + block.size] = block.reshape(-1)
            at += block.size
        return made.reshape(self.shape)


def fold_linear(
    weight: Weight, bias: ArrayLike | None, before: tuple[Array, Array] | None, after: tuple[Array, Array]
) -> tuple[Scaled, Array]:
    """The weights of ``y = W x + c`` once it reads ``x' = before(x)`` and makes ``y' = after(y)``.

    ``bias`` is ``(group * out,)`` or None; ``before`` holds gain and shift as vectors of ``group * in``, ``after`` as
    vectors of ``group * out``. Returns the new weight, still to be computed, and the new bias in float64. Gains of
    ``before`` must not be zero.
    """
    gain, shift = (vector.reshape(weight.outputs) for vector in after)
    offset = np.zeros(weight.outputs) if bias is None else np.asarray(bias, np.float64).reshape(weight.outputs)
    divisor = None
    if before is not None:
        gain_in, shift_in = (vector.reshape(weight.shape[0], -1) for vector in before)
        divisor = None if (gain_in == 1).all() else gain_in
        if shift_in.any():
            offset = offset - _product(weight, shift_in / gain_in)
    return Scaled(weight, gain, divisor, weight.shape), (gain * offset + shift).reshape(-1)


def _product(weight: Weight, vector: Array) -> Array:
    """``(group, out)``: what a weight makes of one number per input, in float64 block by block."""
    made = np.zeros(weight.outputs)
    for (groups, rows), block in weight.blocks():
        exact = block.astype(np.float64)
        if weight.inputs_first:
            made[groups] += np.einsum("giok,gi->go", exact, vector[groups, rows])
        else:
            made[groups, rows] = np.einsum("goik,gi->go", exact, vector[groups])
    return made


def response(weight: Weight, mean: Array, square: Array) -> tuple[Array, Array]:
    """Return mean and variance per output of what a weight makes of independent inputs, in float64 block by block.

    ``mean`` and ``square`` (the variance) are vectors of ``group * in``.
    """
    means, squares = np.zeros(weight.outputs), np.zeros(weight.outputs)
    mean, square = (vector.reshape(weight.shape[0], -1) for vector in (mean, square))
    for (groups, rows), block in weight.blocks():
        exact = block.astype(np.float64)
        if weight.inputs_first:
            means[groups] += np.einsum("giok,gi->go", exact, mean[groups, rows])
            squares[groups] += np.einsum("giok,gi->go", np.square(exact), square[groups, rows])
        else:
            means[groups, rows] = np.einsum("goik,gi->go", exact, mean[groups])
            squares[groups, rows] = np.einsum("goik,gi->go", np.square(exact), square[groups])
    return means.reshape(-1), squares.reshape(-1)


def _at(vector: Array, place: Place) -> Array:
    """Return what belongs to a block of a weight, of something that broadcasts against all of it."""
    groups, rows = place
    return vector[groups, rows] if vector.shape[1] > 1 else vector[groups]


def conv_view(weight: NDArray[Any], group: int) -> NDArray[Any]:
    """Conv's ``(O, I/g, *kernel)`` as ``(g, O/g, I/g, taps)``."""
    outputs, inner = weight.shape[:2]
    return weight.reshape(group, outputs // group, inner, -1)


def conv_transpose_view(weight: NDArray[Any], group: int) -> NDArray[Any]:
    """ConvTranspose's ``(I, O/g, *kernel)`` as ``(g, O/g, I/g, taps)``: each group has its own inputs."""
    inputs, outer = weight.shape[:2]
    return np.swapaxes(weight.reshape(group, inputs // group, outer, -1), 1, 2)


def gemm_view(weight: NDArray[Any], transposed: bool) -> NDArray[Any]:
    """Gemm's ``(K, N)``, or with transB ``(N, K)``, as ``(1, N, K, 1)``."""
    return (weight if transposed else weight.T)[None, :, :, None]
