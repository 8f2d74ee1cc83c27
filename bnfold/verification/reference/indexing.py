"""GatherElements in float64: onnx's reference takes at most 64 entries, and no smaller index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


class GatherElements(OpRun):
    """Entries of ``x`` along ``axis``; the other axes of ``indices`` may be smaller than those of ``x``."""

    def _run(self, x: Array, indices: Array, axis: Any = 0) -> tuple[Array]:
        axis = axis or 0
        inside = tuple(slice(None) if k == axis % x.ndim else slice(size) for k, size in enumerate(indices.shape))
        places = np.where(indices < 0, indices + x.shape[axis], indices)
        return (np.take_along_axis(x[inside], places, axis),)
