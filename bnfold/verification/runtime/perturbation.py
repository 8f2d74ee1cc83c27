"""The expected rounding error of a model that can't run in float64: its outputs with its numbers moved by an ulp."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.io.external import tensors_of
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load
from bnfold.io.save import staged
from bnfold.numerics.rounding import ulp
from bnfold.options import Limits
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.inputs import Sample

MOST_PERTURBED = 2**27
"""Weights that are moved; in a model of more, the rest is left as it is."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def perturbed_run(
    model: LoadedModel, samples: list[Sample], device: str, mode: RunMode, limits: Limits, seed: int
) -> runtime.Run:
    """Run the model with its weights and inputs moved at random by up to an ulp. Raises RunFailed."""
    assert model.path is not None
    moved = load(model.path)
    rng = np.random.default_rng(seed)
    left = MOST_PERTURBED
    for tensor in tensors_of(moved.proto):
        entries = prod(tensor.dims)
        if tensor.data_type in _FLOATS and (len(tensor.dims) >= 2 or entries >= 16) and entries <= left:
            left -= entries
            _perturb(tensor, moved, rng)
    perturbed = [{name: perturbed_by_an_ulp(data, rng) for name, data in sample.items()} for sample in samples]
    with temporary() as folder, staged(moved, folder / "m.onnx") as files:
        return runtime.run(files.model, perturbed, [mode], device, limits)


def perturbed_by_an_ulp(data: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return floats moved by up to an ulp; zeros, and data of other types, are left as they are."""
    if data.dtype.kind != "f":
        return data
    step = np.where(data == 0, 0.0, ulp(data.astype(np.float64), data.dtype))
    return np.asarray((data.astype(np.float64) + step * rng.integers(-1, 2, data.shape)).astype(data.dtype))


def _perturb(tensor: TensorProto, model: LoadedModel, rng: np.random.Generator) -> None:
    moved = perturbed_by_an_ulp(model.external.read(tensor), rng)
    for name in ("external_data", "data_location", "float_data", "int32_data", "double_data"):
        tensor.ClearField(name)
    tensor.raw_data = moved.tobytes()
