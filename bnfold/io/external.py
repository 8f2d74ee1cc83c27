"""Tensors whose data is not in the parsed model: it stayed in the model's file, lies in a file beside it, or is still
to be computed. Found safely, read one at a time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from bnfold.errors import InputError
from bnfold.io import wire
from bnfold.io.digests import DataFiles
from bnfold.io.sibling_files import open_beside, parts_of
from bnfold.io.source import FileSource
from bnfold.io.tensor_data import Computed, Deferred, Stored


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes lie."""

    source: FileSource
    path: Path
    offset: int
    length: int


class _Scratch:
    """A buffer that is used again and again."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """So many bytes of it."""
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size]


@dataclass(frozen=True)
class ExternalData:
    """The folder that external data may lie in; None (a model from standard input) allows none.

    Locations must be relative and must not leave the folder; they name regular files that hold all of the tensor,
    reached without a link, and of one name. Anything else raises InputError.
    ``marked`` is the data of the tensors that :mod:`bnfold.io.wire` marked, and of new ones.
    """

    folder: Path | None
    marked: dict[str, Stored | Deferred] = field(default_factory=dict)
    _files: dict[str, tuple[FileSource, Path]] = field(default_factory=dict)
    _scratch: _Scratch = field(default_factory=_Scratch)

    def defer(self, tensor: TensorProto, weight: Computed) -> None:
        """Let ``tensor`` be computed when it is read or written."""
        self._mark(tensor, Deferred(weight))

    def inline(self, tensor: TensorProto) -> None:
        """Let an external tensor be written into the model's own file."""
        span = self.span(tensor)
        self._mark(tensor, Stored(span.source, span.offset, span.length))

    def _mark(self, tensor: TensorProto, data: Stored | Deferred) -> None:
        placeholder = wire.new_placeholder()
        self.marked[placeholder] = data
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=placeholder)
        tensor.data_location = TensorProto.EXTERNAL

    def of_marked(self, tensor: TensorProto) -> Stored | Deferred | None:
        """The data of a marked tensor; None for any other."""
        return self.marked.get(placeholder_of(tensor))

    def data(self, tensor: TensorProto) -> Stored | Deferred:
        """The data of a marked or external tensor."""
        if (marked := self.of_marked(tensor)) is not None:
            return marked
        span = self.span(tensor)
        return Stored(span.source, span.offset, span.length)

    def span(self, tensor: TensorProto) -> Span:
        """Where the data of an external ``tensor`` lies."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise InputError(
                f"tensor {tensor.name!r} lies in another file, which a model from standard input can't name",
                "give the model as a file",
            )
        if location not in self._files:
            source = open_beside(self.folder, location, tensor.name)
            self._files[location] = source, self.folder.resolve().joinpath(*parts_of(location, tensor.name))
        source, path = self._files[location]
        size = source.size
        needed = byte_size(tensor)
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or needed)
        except ValueError:
            raise InputError(f"tensor {tensor.name!r}: offset and length must be numbers") from None
        if length != needed or offset < 0 or offset + length > size:
            raise InputError(
                f"tensor {tensor.name!r} needs {needed} bytes at offset {offset} of {location!r}, which has {size}",
                "the data file is cut short or belongs to another model",
            )
        return Span(source, path, offset, length)

    def read(self, tensor: TensorProto) -> NDArray[Any]:
        """The data of a tensor, wherever it is. Raises InputError."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return _inline(tensor)
        data = self.data(tensor)
        if isinstance(data, Deferred):
            return data.weight.array()
        if data.size != byte_size(tensor):
            raise _misfit(tensor, data.size)
        if tensor.data_type in _SUB_BYTE or tensor.data_type == TensorProto.STRING:
            raw = data.source.read(data.offset, data.size)
            return _inline(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw))
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        array = np.empty(tuple(tensor.dims), dtype)
        data.source.into(data.offset, array.reshape(-1).view(np.uint8).data)
        return array if sys.byteorder == "little" else array.byteswap()

    def part(self, tensor: TensorProto, start: int, stop: int) -> NDArray[Any]:
        """Some elements of a tensor of whole bytes, flat; only they are read where they lie in a file.

        They are gone when the next part is read: fresh memory for each would cost more than reading it.
        """
        data = self.data(tensor) if tensor.data_location == TensorProto.EXTERNAL else None
        if not isinstance(data, Stored) or data.size != byte_size(tensor) or sys.byteorder != "little":
            return self.read(tensor).reshape(-1)[start:stop]
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size = (stop - start) * dtype.itemsize
        buffer = self._scratch.take(size)
        data.source.into(data.offset + start * dtype.itemsize, buffer.data)
        return buffer.view(dtype)

    @staticmethod
    def is_external(tensor: TensorProto) -> bool:
        """Return True for a tensor whose data lies in another file than the model."""
        return tensor.data_location == TensorProto.EXTERNAL and not placeholder_of(tensor)

    def fill(self, graph: GraphProto) -> None:
        """Put the data into all tensors of ``graph`` that are without."""
        for tensor in tensors_of(graph):
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.raw_data = b"".join(map(bytes, self.data(tensor).chunks()))
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")

    def files(self) -> DataFiles:
        """The data files that were found, by the names that the model gives them."""
        return DataFiles(self._files)

    def check(self) -> None:
        """Raise InputError if a data file that was read has changed since."""
        for source, _ in self._files.values():
            source.check()


def byte_size(tensor: TensorProto) -> int:
    """The bytes that a tensor's data takes. Raises InputError for dims or types that make no sense."""
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"tensor {tensor.name!r} has a negative dimension")
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _SUB_BYTE:
        return -(-count * _SUB_BYTE[tensor.data_type] // 8)
    try:
        return count * int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)
    except (KeyError, TypeError):
        raise InputError(f"tensor {tensor.name!r} has the unknown type {tensor.data_type}") from None


_SUB_BYTE = {
    getattr(TensorProto, name): bits
    for name, bits in (("UINT4", 4), ("INT4", 4), ("FLOAT4E2M1", 4), ("UINT2", 2), ("INT2", 2))
    if hasattr(TensorProto, name)
}


def _misfit(tensor: TensorProto, held: int) -> InputError:
    return InputError(
        f"tensor {tensor.name!r} claims {byte_size(tensor)} bytes and holds {held}", "the file is damaged"
    )


def _inline(tensor: TensorProto) -> NDArray[Any]:
    if tensor.HasField("raw_data") and len(tensor.raw_data) != byte_size(tensor):
        raise _misfit(tensor, len(tensor.raw_data))
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise InputError(f"tensor {tensor.name!r} can't be read: {error}", "the file is damaged") from error


def placeholder_of(tensor: TensorProto) -> str:
    """Return what stands in a tensor in place of its data; nothing for one that is not marked."""
    if tensor.data_location != TensorProto.EXTERNAL or not tensor.external_data:
        return ""
    location = tensor.external_data[0].value
    return location if isinstance(location, str) and wire.is_placeholder(location) else ""


def tensors_of(*roots: ModelProto | GraphProto) -> Iterator[TensorProto]:
    """Every tensor of models or graphs: initializers, sparse ones, attributes, at any depth."""
    pending: list[Any] = []
    for root in roots:
        pending += [root.graph, *root.functions] if isinstance(root, ModelProto) else [root]
    while pending:
        scope = pending.pop()
        if isinstance(scope, GraphProto):
            yield from scope.initializer
            for sparse in scope.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                yield from attribute.tensors
                pending.extend(attribute.graphs)


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """The tensors whose data lies in another file than the model."""
    return [tensor for tensor in tensors_of(model) if ExternalData.is_external(tensor)]
