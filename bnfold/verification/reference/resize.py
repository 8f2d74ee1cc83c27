"""Resize in float64: nearest, linear and cubic interpolation, one matrix per axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]
Attr = Any


class Resize(OpRun):
    """Nearest, linear and cubic interpolation, one matrix per axis; the rest is left to the reference."""

    def _run(
        self,
        x: Array,
        roi: Array | None = None,
        scales: Array | None = None,
        sizes: Array | None = None,
        axes: Attr = None,
        mode: Attr = "nearest",
        coordinate_transformation_mode: Attr = None,
        nearest_mode: Attr = None,
        cubic_coeff_a: Attr = None,
        **attrs: Attr,
    ) -> tuple[Array]:
        version = self.run_params["opsets"].get("", 11)
        if version < 11:
            scales, coordinate_transformation_mode, nearest_mode = roi, "asymmetric", "floor"
        plain = coordinate_transformation_mode != "tf_crop_and_resize" and not attrs.get("antialias")
        if not plain or attrs.get("exclude_outside") or attrs.get("keep_aspect_ratio_policy") not in (None, "stretch"):
            raise NotImplementedError("Resize in this mode")
        axes = [axis % x.ndim for axis in (axes or range(x.ndim))]
        given = scales is not None and scales.size > 0
        for place, axis in enumerate(axes):
            old = x.shape[axis]
            assert given or sizes is not None
            new = int(np.floor(old * scales[place])) if given and scales is not None else int(sizes[place])  # type: ignore[index]
            scale = float(scales[place]) if given and scales is not None else new / old
            if new == old and scale == 1:
                continue
            at = _coordinates(np.arange(new, dtype=np.float64), old, new, scale, coordinate_transformation_mode)
            matrix = _interpolation(at, old, mode, nearest_mode, cubic_coeff_a)
            x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
        return (x,)


def _coordinates(out: Array, old: int, new: int, scale: float, mode: str | None) -> Array:
    """Where each output position lies in the input."""
    if mode == "align_corners":
        return np.zeros(1) if new == 1 else out * (old - 1) / (new - 1)
    if mode == "asymmetric":
        return out / scale
    if mode == "pytorch_half_pixel":
        return np.zeros(1) if new == 1 else (out + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + (out + 0.5) / scale - 0.5
    return (out + 0.5) / scale - 0.5


def _interpolation(at: Array, old: int, mode: str, nearest: str | None, cubic: Attr) -> Array:
    """Return the matrix (outputs, inputs) that interpolates at coordinates ``at``; those outside take edge pixels."""
    matrix, rows = np.zeros((len(at), old)), np.arange(len(at))
    if mode == "nearest":
        rounds: dict[str, Callable[[Array], Array]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        }
        index = rounds[nearest](at) if nearest in rounds else np.ceil(at - 0.5)
        matrix[rows, np.clip(index, 0, old - 1).astype(int)] = 1.0
        return matrix
    base = np.floor(at)
    t = at - base
    if mode == "linear":
        parts = {0: 1 - t, 1: t}
    else:
        a = -0.75 if cubic is None else float(cubic)
        near = {k: (a + 2) * abs(t - k) ** 3 - (a + 3) * (t - k) ** 2 + 1 for k in (0, 1)}
        far = {k: a * (abs(t - k) ** 3 - 5 * (t - k) ** 2 + 8 * abs(t - k) - 4) for k in (-1, 2)}
        parts = {**near, **far}
    for offset, part in parts.items():
        np.add.at(matrix, (rows, np.clip(base + offset, 0, old - 1).astype(int)), part)
    return matrix
