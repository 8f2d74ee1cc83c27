"""Tensors whose data lies in a file beside the model: found safely, mapped, never loaded whole."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from bnfold.errors import InputError


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes lie."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True)
class ExternalData:
    """The folder that external data may lie in; None (a model from standard input) allows none.

    Locations must be relative, must not leave the folder, not even by a symbolic link, and must name
    regular files that hold all of the tensor. Anything else raises InputError.
    """

    folder: Path | None

    def span(self, tensor: TensorProto) -> Span:
        """Where the data of an external ``tensor`` lies."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise InputError(
                f"tensor {tensor.name!r} lies in another file, which a model from standard input can't name",
                "give the model as a file",
            )
        path = self._resolve(tensor.name, location)
        size = self._size(path, tensor.name)
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
        return Span(path, offset, length)

    def read(self, tensor: TensorProto) -> NDArray[Any]:
        """The data of a tensor, inline or external; external data is mapped read-only, not loaded."""
        if tensor.data_location != TensorProto.EXTERNAL:
            return _inline(tensor)
        span = self.span(tensor)
        if tensor.data_type in _SUB_BYTE:
            packed = np.fromfile(span.path, np.uint8, span.length, offset=span.offset)
            inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=packed.tobytes())
            return numpy_helper.to_array(inline)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if span.length == 0:
            return np.zeros(tuple(tensor.dims), dtype)
        flat = np.memmap(span.path, np.uint8, "r", span.offset, (span.length,))
        return flat.view(np.dtype(dtype).newbyteorder("<")).reshape(tuple(tensor.dims))

    def _resolve(self, name: str, location: str) -> Path:
        assert self.folder is not None
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location:
            raise InputError(
                f"tensor {name!r} points to {location!r}, outside the model's folder",
                "external data must lie beside the model, under a relative name",
            )
        try:
            folder = self.folder.resolve()
            path = (folder / location).resolve()
        except (OSError, RuntimeError):
            raise InputError(f"tensor {name!r}: {location!r} is a link that leads nowhere") from None
        if not path.is_relative_to(folder):
            raise InputError(f"tensor {name!r}: {location!r} is a link that leaves the model's folder")
        return path

    def _size(self, path: Path, name: str) -> int:
        try:
            status = os.stat(path)
        except OSError:
            raise InputError(
                f"tensor {name!r}: its data file {path.name!r} is missing", "copy it beside the model"
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"tensor {name!r}: {path.name!r} is not a regular file")
        return status.st_size


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


def _inline(tensor: TensorProto) -> NDArray[Any]:
    if tensor.HasField("raw_data") and len(tensor.raw_data) != byte_size(tensor):
        raise InputError(
            f"tensor {tensor.name!r} claims {byte_size(tensor)} bytes and holds {len(tensor.raw_data)}",
            "the file is damaged",
        )
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise InputError(f"tensor {tensor.name!r} can't be read: {error}", "the file is damaged") from error


def graphs_of(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and every graph nested in it or in a function."""
    pending: list[Any] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        if isinstance(graph, GraphProto):
            yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers, sparse ones, attributes, at any depth."""
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for scope in (*graphs_of(model), *model.functions):
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """The tensors whose data lies outside the model."""
    return [tensor for tensor in tensors_of(model) if tensor.data_location == TensorProto.EXTERNAL]
