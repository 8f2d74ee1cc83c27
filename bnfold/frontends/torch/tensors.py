"""Tensors of torch as arrays of numpy and back, bfloat16 included."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnfold.ir.evaluation import NotEvaluable

DTYPES: dict[torch.dtype, str] = {
    torch.float16: "float16", torch.float32: "float32", torch.float64: "float64", torch.int8: "int8",
    torch.int16: "int16", torch.int32: "int32", torch.int64: "int64", torch.uint8: "uint8", torch.bool: "bool",
}  # fmt: skip


def np_dtype(dtype: torch.dtype) -> np.dtype[Any] | None:
    """The numpy (or ml_dtypes) type; None for one without."""
    if dtype is torch.bfloat16:
        import ml_dtypes

        wide: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return wide
    name = DTYPES.get(dtype)
    return None if name is None else np.dtype(name)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A tensor's data. Raises NotEvaluable for one that is not dense, or of a type that numpy has not."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or np_dtype(tensor.dtype) is None:
        raise NotEvaluable(f"a tensor of type {tensor.dtype} and layout {tensor.layout} can't be read")
    tensor = tensor.cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def from_numpy(data: NDArray[Any]) -> Tensor:
    """The data as a tensor of its own."""
    data = np.array(data, order="C", copy=True)
    if data.dtype.name == "bfloat16":
        return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(data)
