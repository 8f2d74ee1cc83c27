"""Which positions and channels a convolution reads, and its kernel as one that reads more, with zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node
from bnfold.ir.op_views import ConvView

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Taps:
    """The geometry of a convolution, by axis of positions.

    The output at ``p`` reads the input at ``stride p - before + dilation t`` for ``t`` from 0 to ``kernel - 1``.
    ``surplus`` is how much longer than the input the padded input is, less the kernel's extent: it sets the length of
    the output.
    """

    outputs: int
    inputs: int
    group: int
    kernel: tuple[int, ...]
    before: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    surplus: tuple[int, ...]

    @classmethod
    def of(cls, conv: Node) -> Taps | None:
        """Return the geometry of a Conv with a constant weight; None where it is not known. Raises NotEvaluable."""
        view = ConvView.of(conv)
        pads = view.pads() if view.is_valid and view.auto_pad in ("NOTSET", "VALID") else None
        if pads is None:
            return None
        kernel, rank = view.shape[2:], len(view.shape) - 2
        ones = [1] * rank
        dilation, stride = conv.attr("dilations", ones), conv.attr("strides", ones)
        extent = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        surplus = [a + b - n for a, b, n in zip(pads[:rank], pads[rank:], extent, strict=True)]
        rows = map(tuple, (kernel, pads[:rank], dilation, stride, surplus))
        return cls(view.outputs, view.inputs, view.group, *rows)

    @classmethod
    def of_itself(cls, channels: int, rank: int) -> Taps:
        """Return the geometry of the 1×1 kernel, a group for each channel, that changes nothing."""
        ones, zeros = (1,) * rank, (0,) * rank
        return cls(channels, channels, channels, ones, zeros, ones, ones, zeros)

    def covers(self, other: Taps) -> bool:
        """Return True if each product of the other is one of this one's, at the same position of the output."""
        same = (self.outputs, self.inputs, self.stride, self.surplus)
        if same != (other.outputs, other.inputs, other.stride, other.surplus) or other.group % self.group:
            return False
        axes = zip(self.kernel, self.before, self.dilation, other.kernel, other.before, other.dilation, strict=True)
        for own, before, dilation, kernel, other_before, step in axes:
            first, on_grid = before - other_before, kernel == 1 or step % dilation == 0
            last = first + step * (kernel - 1)
            if first < 0 or first % dilation or not on_grid or last > dilation * (own - 1):
                return False
        return True

    def spread(self, weight: Array, other: Taps) -> Array:
        """Return the weight of another convolution, which this one covers, with zeros around and between its own."""
        wide = np.zeros((self.outputs, self.inputs // self.group, *self.kernel))
        positions = []
        for before, dilation, kernel, other_before, step in zip(
            self.before, self.dilation, other.kernel, other.before, other.dilation, strict=True
        ):
            first = (before - other_before) // dilation
            by = max(step // dilation, 1)
            positions.append(slice(first, first + by * (kernel - 1) + 1, by))
        inner = other.inputs // other.group
        rows = self.outputs // other.group
        for number in range(other.group):
            start = number * inner % (self.inputs // self.group)
            out = slice(number * rows, (number + 1) * rows)
            wide[(out, slice(start, start + inner), *positions)] = weight[out]
        return wide
