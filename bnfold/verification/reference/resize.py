"""Resize and Upsample in float64: nearest, linear and cubic interpolation, one matrix per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from bnfold.verification.reference.sampling import cubic_kernel

Array = NDArray[Any]
Attr = Any


class Resize(OpRun):
    """All modes of all opsets. Sizes and scales may be given for some ``axes`` alone."""

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
        exclude_outside: Attr = 0,
        extrapolation_value: Attr = None,
        antialias: Attr = 0,
        keep_aspect_ratio_policy: Attr = None,
    ) -> tuple[Array]:
        version = self.run_params["opsets"].get("", 11)
        if version < 11:
            scales, coordinate_transformation_mode, nearest_mode = roi, "asymmetric", "floor"
        kind = coordinate_transformation_mode or "half_pixel"
        a = -0.75 if cubic_coeff_a is None else float(cubic_coeff_a)
        how = _Interpolation(mode or "nearest", kind, nearest_mode, a, bool(exclude_outside), bool(antialias))
        axes = [axis % x.ndim for axis in (axes or range(x.ndim))]
        outside = 0.0 if extrapolation_value is None else float(extrapolation_value)
        for axis, (new, scale), region in zip(
            axes, _targets(x, axes, scales, sizes, keep_aspect_ratio_policy), _regions(roi, len(axes)), strict=True
        ):
            old = x.shape[axis]
            if new == old and scale == 1 and kind != "tf_crop_and_resize":
                continue
            at = _coordinates(np.arange(new, dtype=np.float64), old, new, scale, kind, region)
            x = np.moveaxis(np.tensordot(x, how.matrix(at, old, scale), (axis, 1)), -1, axis)
            if kind == "tf_crop_and_resize" and ((beyond := (at < 0) | (at > old - 1)).any()):
                x = np.where(beyond.reshape([-1 if k == axis else 1 for k in range(x.ndim)]), outside, x)
        return (x,)


class Upsample(Resize):
    """Resize before opset 10, which had its scales as an attribute before opset 9."""

    def _run(self, x: Array, scales: Attr, mode: Attr = "nearest") -> tuple[Array]:  # type: ignore[override]
        return super()._run(x, np.asarray(scales), mode=mode)


def _targets(
    x: Array, axes: Sequence[int], scales: Array | None, sizes: Array | None, policy: Attr
) -> list[tuple[int, float]]:
    """Return the size and the scale of each resized axis."""
    if scales is not None and scales.size > 0:
        return [(int(np.floor(x.shape[axis] * s)), float(s)) for axis, s in zip(axes, scales, strict=True)]
    assert sizes is not None
    factors = [int(size) / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    if policy in (None, "stretch"):
        return [(int(size), factor) for size, factor in zip(sizes, factors, strict=True)]
    scale = min(factors) if policy == "not_larger" else max(factors)
    return [(int(np.floor(x.shape[axis] * scale + 0.5)), scale) for axis in axes]


def _regions(roi: Array | None, count: int) -> list[tuple[float, float]]:
    """Return where each axis starts and ends for ``tf_crop_and_resize``, as shares of it."""
    if roi is None or roi.size != 2 * count:
        return [(0.0, 1.0)] * count
    return list(zip(roi[:count].tolist(), roi[count:].tolist(), strict=True))


def _coordinates(out: Array, old: int, new: int, scale: float, mode: str, region: tuple[float, float]) -> Array:
    """Where each output position lies in the input."""
    if mode == "align_corners":
        return np.zeros(1) if new == 1 else out * (old - 1) / (new - 1)
    if mode == "asymmetric":
        return out / scale
    if mode == "pytorch_half_pixel":
        return np.zeros(1) if new == 1 else (out + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + (out + 0.5) / scale - 0.5
    if mode == "tf_crop_and_resize":
        start, end = region
        if new == 1:
            return np.full(1, 0.5 * (start + end) * (old - 1))
        return start * (old - 1) + out * (end - start) * (old - 1) / (new - 1)
    return (out + 0.5) / scale - 0.5


@dataclass(frozen=True)
class _Interpolation:
    """How values between two positions are found."""

    mode: str
    coordinates: str
    nearest: str | None
    cubic: float
    exclude_outside: bool
    antialias: bool

    def matrix(self, at: Array, old: int, scale: float) -> Array:
        """Return the matrix (outputs, inputs) that interpolates at ``at``; what is outside takes edge pixels."""
        matrix, rows = np.zeros((len(at), old)), np.arange(len(at))
        if self.mode == "nearest":
            rounds: dict[str, Callable[[Array], Array]] = {
                "floor": np.floor,
                "ceil": np.ceil,
                "round_prefer_ceil": lambda v: np.floor(v + 0.5),
            }
            index = rounds[self.nearest](at) if self.nearest in rounds else np.ceil(at - 0.5)
            matrix[rows, np.clip(index, 0, old - 1).astype(int)] = 1.0
            return matrix
        base = np.floor(at)
        for offset, part in self._weights(at - base, scale).items():
            place = base + offset
            if self.exclude_outside:
                part = part * ((place >= 0) & (place <= old - 1))
            np.add.at(matrix, (rows, np.clip(place, 0, old - 1).astype(int)), part)
        normalized = self.exclude_outside or self.antialias
        return matrix / matrix.sum(axis=1, keepdims=True) if normalized else matrix

    def _weights(self, t: Array, scale: float) -> dict[int, Array]:
        """Return the weight of each position, by its offset from the one before; a filter is as wide as a step."""
        wide = min(scale, 1.0) if self.antialias else 1.0
        if self.mode == "linear":
            reach = int(np.ceil(1 / wide))
            return {k: np.clip(1 - abs(t - k) * wide, 0, 1) for k in range(1 - reach, reach + 1)}
        reach = int(np.ceil(2 / wide))
        return {k: cubic_kernel((t - k) * wide, self.cubic) for k in range(1 - reach, reach + 1)}
