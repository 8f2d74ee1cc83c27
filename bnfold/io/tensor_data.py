"""The data of a tensor that is not in the parsed model: it lies in a file, or is computed when it is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.io.source import Source


@dataclass(frozen=True)
class Stored:
    """Data that lies in a file.

    ``message`` is the offset and length of the whole TensorProto around it, if one is, ``head`` what was read of that.
    """

    source: Source
    offset: int
    size: int
    message: tuple[int, int] | None = None
    head: bytes = b""

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, chunk by chunk."""
        return self.source.chunks(self.offset, self.size)


class Computed(Protocol):
    """A tensor that is still to be computed (:class:`bnfold.numerics.linear.Scaled`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""

    @property
    def dtype(self) -> Any:
        """Of the tensor."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The tensor in the order in which it is stored, chunk by chunk."""

    def array(self) -> NDArray[Any]:
        """The tensor as a whole."""


@dataclass(frozen=True, eq=False)
class Deferred:
    """Data that is computed when it is read."""

    weight: Computed

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.weight.shape) * int(np.dtype(self.weight.dtype).itemsize)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, chunk by chunk, as ONNX orders them."""
        for block in self.weight.blocks():
            yield little_endian(block).reshape(-1).view(np.uint8).data


def little_endian(data: NDArray[Any]) -> NDArray[Any]:
    """An array as ONNX stores it."""
    return np.ascontiguousarray(data).astype(data.dtype.newbyteorder("<"), copy=False)
