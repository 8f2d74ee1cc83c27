"""Operators that slide a window over positions, in float64: convolutions, transposed ones, pools.

A convolution is one matrix product for as many positions as are copied at a time, a pool one pass per tap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product, repeat
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]
Attr = Any
Index = tuple[Any, ...]

COPIED = 2**22
"""Entries that a convolution copies for one matrix product (32 MiB): what its kernel sees from some positions."""


@dataclass(frozen=True)
class Windows:
    """How a window slides over the positions of ``(N, C, D1, …)``; lists have one entry per position axis."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begin: Sequence[int]
    end: Sequence[int]
    out: Sequence[int]

    @classmethod
    def of(
        cls,
        size: Sequence[int],
        kernel: Sequence[int],
        *,
        auto_pad: str | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        ceil_mode: int | None = 0,
    ) -> Windows:
        """The windows that an operator's attributes ask for over positions of ``size``."""
        axes = range(len(kernel))
        strides = strides or [1 for _ in axes]
        dilations = dilations or [1 for _ in axes]
        pads = pads or [0 for _ in (*axes, *axes)]
        reach = [dilations[k] * (kernel[k] - 1) + 1 for k in axes]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = [-(-size[k] // strides[k]) for k in axes]
            total = [max((out[k] - 1) * strides[k] + reach[k] - size[k], 0) for k in axes]
            less, more = [n // 2 for n in total], [n - n // 2 for n in total]
            begin, end = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
            return cls(kernel, strides, dilations, begin, end, out)
        if auto_pad == "VALID":
            pads = [0 for _ in (*axes, *axes)]
        begin, end = list(pads[: len(kernel)]), list(pads[len(kernel) :])
        out = []
        for k in axes:
            extent = size[k] + begin[k] + end[k] - reach[k]
            steps = (-(-extent // strides[k]) if ceil_mode else extent // strides[k]) + 1
            if ceil_mode and (steps - 1) * strides[k] >= size[k] + begin[k]:
                steps -= 1
            out.append(steps)
        return cls(kernel, strides, dilations, begin, end, out)

    def padded(self, x: Array, value: float) -> Array:
        """``x`` with ``value`` around it, far enough for every window."""
        extra = [
            max(0, (o - 1) * s + d * (k - 1) + 1 - b - n)
            for n, k, s, d, b, o in zip(
                x.shape[2:], self.kernel, self.strides, self.dilations, self.begin, self.out, strict=True
            )
        ]
        width = [(0, 0), (0, 0), *zip(self.begin, extra, strict=True)]
        return np.pad(x, width, constant_values=value) if any(sum(pair) for pair in width) else x

    def taps(self, x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """For each position in the kernel, what it sees of a padded ``x``: ``(N, C, O1, …)``, a view."""
        for tap in product(*map(range, self.kernel)):
            places = (
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, self.dilations, self.out, self.strides, strict=True)
            )
            place: Index = (slice(None), slice(None), *places)
            yield tap, x[place]


class Conv(OpRun):
    """Cross-correlation with groups, strides, dilations and padding in any number of dimensions."""

    def _run(
        self, x: Array, w: Array, b: Array | None = None, group: Attr = 1, kernel_shape: Attr = None, **attrs: Attr
    ) -> tuple[Array]:
        windows = Windows.of(x.shape[2:], w.shape[2:], **attrs)
        groups, inner, outer = group or 1, w.shape[1], w.shape[0] // (group or 1)
        out_shape = (x.shape[0], groups * outer, *windows.out)
        seen = [view for _, view in windows.taps(windows.padded(x, 0.0))]
        if inner == 1:
            total = np.zeros((x.shape[0], groups, outer, *windows.out))
            for place, view in zip(product(*map(range, w.shape[2:])), seen, strict=True):
                total += w[_tap(place)].reshape(groups, outer, *[1 for _ in windows.out]) * view[:, :, None]
        elif x.shape[0] > 1 and x.shape[0] * x.shape[1] * len(seen) * prod(windows.out) <= COPIED:
            columns = np.stack(seen, 2).reshape(x.shape[0], groups, inner * len(seen), -1).transpose(1, 2, 0, 3)
            made = w.reshape(groups, outer, -1) @ columns.reshape(groups, inner * len(seen), -1)  # all samples at once
            total = made.reshape(groups, outer, x.shape[0], -1).transpose(2, 0, 1, 3)
        else:
            rows = w.reshape(groups, outer, -1)
            row = prod(windows.out[1:])
            total = np.zeros((x.shape[0], groups, outer, windows.out[0] * row))
            step = max(1, COPIED // max(1, prod(x.shape[:2]) * len(seen) * row))
            for start in range(0, windows.out[0], step):
                copied = np.stack([view[:, :, start : start + step] for view in seen], 2)
                columns = copied.reshape(x.shape[0], groups, rows.shape[2], -1)
                np.matmul(rows, columns, out=total[..., start * row : (start + step) * row])
        total = total.reshape(out_shape)
        if b is not None:
            total += b.reshape(-1, *[1 for _ in windows.out])
        return (total,)


class ConvTranspose(OpRun):
    """The transpose of Conv: each input position adds the kernel into the output."""

    def _run(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        auto_pad: Attr = None,
        dilations: Attr = None,
        group: Attr = 1,
        kernel_shape: Attr = None,
        output_padding: Attr = None,
        output_shape: Attr = None,
        pads: Attr = None,
        strides: Attr = None,
    ) -> tuple[Array]:
        rank, groups = x.ndim - 2, group or 1
        axes, ones = range(x.ndim - 2), [1] * rank
        strides, dilations, extra = strides or ones, dilations or ones, output_padding or [0] * rank
        reach = [dilations[k] * (w.shape[2 + k] - 1) + 1 for k in axes]
        full = [strides[k] * (x.shape[2 + k] - 1) + reach[k] + extra[k] for k in axes]
        pads = list(pads) if pads else [0] * (2 * rank)
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = list(output_shape)[-rank:] if output_shape else [x.shape[2 + k] * strides[k] for k in axes]
            total = [max(full[k] - wanted[k], 0) for k in axes]
            less, more = [n // 2 for n in total], [n - n // 2 for n in total]
            pads = less + more if auto_pad == "SAME_UPPER" else more + less
            full = [max(full[k], wanted[k]) for k in axes]
        elif auto_pad == "VALID":
            pads = [0] * (2 * rank)
        inner, outer = w.shape[0] // groups, w.shape[1]
        y = np.zeros((x.shape[0], groups * outer, *full))
        rows = x.reshape(x.shape[0], groups, inner, -1)
        for tap in product(*map(range, w.shape[2:])):
            part = w[_tap(tap)].reshape(groups, inner, outer).swapaxes(1, 2)
            places = (
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            )
            place: Index = (slice(None), slice(None), *places)
            y[place] += (part @ rows).reshape(x.shape[0], -1, *x.shape[2:])
        inside: Index = (..., *(slice(pads[k], full[k] - pads[rank + k]) for k in axes))
        y = y[inside]
        return (y if b is None else y + b.reshape(-1, *ones),)


class MaxPool(OpRun):
    """The largest value of each window, and on request where it stands: the first of several."""

    def _run(self, x: Array, kernel_shape: Attr = None, storage_order: Attr = 0, **attrs: Attr) -> tuple[Array, ...]:
        windows = Windows.of(x.shape[2:], kernel_shape, **attrs)
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        indexed = len([name for name in self.onnx_node.output if name]) > 1
        best: Array | None = None
        where = np.zeros((), np.int64)
        places = windows.padded(_places(x.shape, bool(storage_order)), 0) if indexed else None
        taps = windows.taps(windows.padded(x, lowest))
        others = repeat((0, where)) if places is None else windows.taps(places)
        for (_, seen), (_, place) in zip(taps, others, strict=False):
            if best is None:
                best, where = seen.copy(), place
            elif places is None:
                best = np.maximum(best, seen, out=best)
            else:
                where, best = np.where(seen > best, place, where), np.maximum(best, seen)
        assert best is not None
        return (best, np.broadcast_to(where, best.shape)) if indexed else (best,)


def _places(shape: Sequence[int], column_major: bool) -> Array:
    """Return the place of each entry of a tensor ``(N, C, D1, …)`` by rows, or by columns in an image."""
    inner = prod(shape[2:])
    order = np.arange(inner).reshape(shape[2:], order="F" if column_major else "C")
    return np.arange(shape[0] * shape[1]).reshape(*shape[:2], *(1 for _ in shape[2:])) * inner + order


class AveragePool(OpRun):
    """The mean of each window, over what lies inside the input or inside its padding."""

    def _run(self, x: Array, kernel_shape: Attr = None, count_include_pad: Attr = 0, **attrs: Attr) -> tuple[Array]:
        windows = Windows.of(x.shape[2:], kernel_shape, **attrs)
        total = _sum(windows, windows.padded(x, 0.0))
        inside = np.ones((1, 1, *x.shape[2:]))
        if count_include_pad:
            rank = len(kernel_shape)
            inside = np.pad(inside, [(0, 0), (0, 0), *zip(windows.begin, windows.end, strict=True)], constant_values=1)
            windows = replace(windows, begin=[0] * rank, end=[0] * rank)
        return (total / _sum(windows, windows.padded(inside, 0.0)),)


def _tap(place: tuple[int, ...]) -> Index:
    """The weights of all channels at one place in the kernel."""
    return (slice(None), slice(None), *place)


def _sum(windows: Windows, x: Array) -> Array:
    """The sum of each window."""
    total = np.zeros((*x.shape[:2], *windows.out))
    for _, seen in windows.taps(x):
        total += seen
    return total
