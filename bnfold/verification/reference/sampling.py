"""GridSample and RoiAlign in float64: values between the pixels of an image, all places at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_roi_align import RoiAlign as Reference

Array = NDArray[Any]
Attr = Any


def cubic_kernel(x: Array, a: float) -> Array:
    """Return the weight of a pixel at the distance ``x`` in cubic interpolation."""
    x = abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


class GridSample(OpRun):
    """An image at the places of a grid (from -1 to 1 over the image), in any number of dimensions."""

    def _run(
        self, x: Array, grid: Array, mode: Attr = "linear", padding_mode: Attr = "zeros", align_corners: Attr = 0
    ) -> tuple[Array]:
        sizes = x.shape[2:]
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode or "linear", mode or "linear")
        taps: list[list[tuple[Array, Array]]] = []
        for axis, size in enumerate(sizes):
            at = grid[..., len(sizes) - 1 - axis].astype(np.float64)  # the grid names the last axis first
            at = (at + 1) / 2 * (size - 1) if align_corners else ((at + 1) * size - 1) / 2
            if padding_mode == "border" and mode != "cubic":
                at = np.clip(at, 0, size - 1)
            elif padding_mode == "reflection" and mode != "cubic":
                at = _reflected(at, size, align_corners)
            if mode == "nearest":
                taps.append([(np.rint(at), np.ones_like(at))])
                continue
            base = np.floor(at)
            t = at - base
            if mode == "linear":
                taps.append([(base, 1 - t), (base + 1, t)])
            else:
                taps.append([(base + k, cubic_kernel(t - k, -0.75)) for k in (-1, 0, 1, 2)])
        total = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
        batch = np.arange(x.shape[0]).reshape(-1, *[1 for _ in sizes])
        for chosen in product(*taps):
            places, weight = [], np.ones(grid.shape[:-1])
            for (place, part), size in zip(chosen, sizes, strict=True):
                if padding_mode == "zeros":
                    weight = weight * ((place >= 0) & (place <= size - 1))
                elif padding_mode == "reflection":
                    place = _reflected(place, size, align_corners)
                weight = weight * part
                places.append(np.clip(np.rint(np.nan_to_num(place)), 0, size - 1).astype(np.int64))
            seen = np.moveaxis(x[(batch, slice(None), *places)], -1, 1)
            total += np.where(weight[:, None] == 0, 0.0, seen * weight[:, None])
        return (total if x.dtype.kind == "f" else total.astype(x.dtype),)


def _reflected(at: Array, size: int, align_corners: Attr) -> Array:
    """Return coordinates mirrored at the edges until they lie inside."""
    low, length = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    if length == 0:
        return np.zeros_like(at)
    turn = np.mod(at - low, 2 * length)
    return np.asarray(np.minimum(turn, 2 * length - turn) + low)


class RoiAlign(Reference):
    """The mean of interpolated values in each cell of a region of interest; onnx's reference takes the largest."""

    def _run(
        self,
        x: Array,
        rois: Array,
        images: Array,
        coordinate_transformation_mode: Attr = None,
        mode: Attr = "avg",
        output_height: Attr = 1,
        output_width: Attr = 1,
        sampling_ratio: Attr = 0,
        spatial_scale: Attr = 1.0,
    ) -> tuple[Array]:
        version = self.run_params["opsets"].get("", 16)
        half = version >= 16 and (coordinate_transformation_mode or "half_pixel") == "half_pixel"
        cells, ratio, scale = (output_height, output_width), sampling_ratio, spatial_scale
        if mode == "max":
            plain: Callable[..., tuple[Array]] = super()._run
            return plain(x, rois, images, "half_pixel" if half else "output_half_pixel", mode, *cells, ratio, scale)
        out = np.zeros((len(rois), x.shape[1], *cells))
        for index, (roi, image) in enumerate(zip(rois.astype(np.float64), images.astype(int), strict=True)):
            left, top, right, bottom = roi * scale - (0.5 if half else 0)
            axes = []
            for start, end, count, size in ((top, bottom, cells[0], x.shape[2]), (left, right, cells[1], x.shape[3])):
                extent = end - start if half else max(end - start, 1.0)
                each = ratio or int(np.ceil(extent / count))
                at = start + (np.arange(count * max(each, 0)) + 0.5) * extent / (count * max(each, 1))
                axes.append(_linear_matrix(at, size).reshape(count, max(each, 0), size))
            if all(axis.size for axis in axes):
                rows, columns = (axis.mean(axis=1) for axis in axes)
                out[index] = rows @ x[image] @ columns.T
        return (out,)


def _linear_matrix(at: Array, size: int) -> Array:
    """Return the matrix (places, pixels) that interpolates at ``at``; nothing is seen beyond a pixel from the edge."""
    matrix = np.zeros((len(at), size))
    inside = (at >= -1) & (at <= size)
    at = np.clip(at, 0, size - 1)
    base = np.minimum(np.floor(at), max(size - 2, 0)).astype(int)
    t = at - base
    rows = np.arange(len(at))
    np.add.at(matrix, (rows, base), (1 - t) * inside)
    np.add.at(matrix, (rows, np.minimum(base + 1, size - 1)), t * inside)
    return matrix
