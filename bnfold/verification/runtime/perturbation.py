"""The expected rounding error of a model that can't run in float64: its outputs with its numbers moved by an ulp."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.io.external import tensors_of
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load
from bnfold.io.save import staged
from bnfold.numerics.rounding import accumulated_error, ulp
from bnfold.options import Limits
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import Sample

MOST_PERTURBED = 2**27
"""Weights that are moved; in a model of more, the rest is left as it is."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


ALL_MOVED = 2 / 3
"""The share of numbers that are moved by an ulp where each goes down, stays or goes up."""

AS_ROUNDED = 1 / 12
"""The share of numbers that, moved by an ulp, differ as much (in their mean square) as if all had been rounded once."""


def perturbed_run(
    model: LoadedModel,
    samples: list[Sample],
    device: str,
    modes: Sequence[RunMode],
    limits: Limits,
    seed: int,
    share: float = ALL_MOVED,
) -> runtime.Run:
    """Run the model with a share of its weights and inputs moved at random by an ulp. Raises RunFailed."""
    assert model.path is not None
    moved = load(model.path)
    rng = np.random.default_rng(seed)
    left = MOST_PERTURBED
    for tensor in tensors_of(moved.proto):
        entries = prod(tensor.dims)
        if tensor.data_type in _FLOATS and (len(tensor.dims) >= 2 or entries >= 16) and entries <= left:
            left -= entries
            _perturb(tensor, moved, rng, share)
    perturbed = [{name: perturbed_by_an_ulp(data, rng, share) for name, data in sample.items()} for sample in samples]
    with temporary() as folder, staged(moved, folder / "m.onnx") as files:
        return runtime.run(files.model, perturbed, modes, device, limits)


def perturbed_by_an_ulp(data: NDArray[Any], rng: np.random.Generator, share: float = ALL_MOVED) -> NDArray[Any]:
    """Return floats of which a share is moved by an ulp; zeros, and data of other types, are left as they are."""
    if data.dtype.kind != "f":
        return data
    step = np.where(data == 0, 0.0, ulp(data.astype(np.float64), data.dtype))
    draw = rng.random(data.shape)
    moves = np.where(draw < share / 2, -1.0, np.where(draw < share, 1.0, 0.0))
    return np.asarray((data.astype(np.float64) + step * moves).astype(data.dtype))


def accumulated_noise(
    rng: np.random.Generator, shape: tuple[int, ...], bias: NDArray[Any], weights: int, dtype: Any
) -> NDArray[np.float64] | None:
    """Return noise as large as what the sums of a linear operator lose that start at its bias.

    Of a result of this ``shape``, which has the channels of the ``bias`` on its second axis, or on its last. Each adds
    up as many products as it has weights, of which there are ``weights`` in all. None where the bias is laid out in
    another way.
    """
    starts = np.asarray(bias, np.float64).reshape(-1)
    axis = next((k for k in (1, len(shape) - 1) if 0 < k < len(shape) and shape[k] == starts.size), None)
    if axis is None or not starts.size:
        return None
    sizes = accumulated_error(starts, weights / starts.size, dtype)
    return np.asarray(rng.standard_normal(shape) * sizes.reshape(-1, *(1,) * (len(shape) - axis - 1)))


def _perturb(tensor: TensorProto, model: LoadedModel, rng: np.random.Generator, share: float) -> None:
    moved = perturbed_by_an_ulp(model.external.read(tensor), rng, share)
    for name in ("external_data", "data_location", "float_data", "int32_data", "double_data"):
        tensor.ClearField(name)
    tensor.raw_data = moved.tobytes()
