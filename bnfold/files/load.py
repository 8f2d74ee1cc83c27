"""Read a model: bytes or a file in, a checked ModelProto out. Nothing in it is executed."""

from __future__ import annotations

import hashlib
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from bnfold.errors import InputError
from bnfold.files.external import ExternalData, byte_size, external_tensors, tensors_of
from bnfold.files.sniff import kind_of

LIMIT = 2**31 - 1
"""Bytes that protobuf can hold in one message."""

WIDEST = 8
"""Bytes of data that one byte of a packed field can stand for, at most: a double written as one varint."""


KINDS = {"pt2": "a program of torch (.pt2)", "torchscript": "a TorchScript archive", "pickle": "a pickled module"}
"""What files that are not ONNX are called."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was read. ``sha256`` is that of the model file, ``size`` its bytes.

    ``path`` is None for standard input; ``raw`` then holds what was read, since it can't be read again.
    """

    path: Path | None
    proto: ModelProto
    sha256: str
    size: int
    external: ExternalData
    raw: bytes | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "<stdin>" if self.path is None else str(self.path)

    def bytes(self) -> bytes:
        """The bytes as they were read. Raises InputError if the file has changed since."""
        if self.path is None:
            assert self.raw is not None
            return self.raw
        data = read_file(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InputError(f"{self.path}: the file has changed while it was being worked on")
        return data


def load(source: str | Path) -> LoadedModel:
    """Load an ONNX model from a path, or from standard input for ``-``. Raises InputError."""
    if str(source) == "-":
        if sys.stdin is None:
            raise InputError("<stdin>: standard input is closed")
        return load_bytes(sys.stdin.buffer.read())
    path = Path(source)
    return load_bytes(read_file(path), path)


def load_bytes(data: bytes, path: Path | None = None) -> LoadedModel:
    """Parse and check the bytes of an ONNX model; ``path`` says where its external data may lie."""
    name = str(path or "<stdin>")
    if (kind := kind_of(data, name)) != "onnx":
        raise InputError(f"{name}: {KINDS[kind]}; only ONNX can be read here", "name the file to fold or verify it")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"{name}: not an ONNX model, or cut short ({error})", "export it again") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name}: not an ONNX model: it has no graph", "give the .onnx file itself")
    external = ExternalData(None if path is None else path.parent)
    try:
        _check(proto, external, len(data))
    except InputError as error:
        raise InputError(f"{name}: {error}", error.hint) from None
    return LoadedModel(path, proto, hashlib.sha256(data).hexdigest(), len(data), external, None if path else data)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises InputError."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder, not a model", "give the .onnx file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: not a regular file")
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path}: over 2 GiB in one file", "save it with external data")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}", "check the path") from None


def read_head(path: Path) -> bytes:
    """The first bytes of a file; none where it can't be read, which is found out later."""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except (OSError, ValueError):
        return b""


def _check(model: ModelProto, external: ExternalData, size: int) -> None:
    """Refuse what no runtime should be fed: nodes without an operator, absurd tensors, unsafe locations."""
    nodes = list(model.graph.node)
    if any(not node.op_type for node in nodes):
        raise InputError("a node has no operator", "the file is damaged")
    for info in (*model.graph.input, *model.graph.output):
        kind = info.type.tensor_type.elem_type
        if info.type.HasField("tensor_type") and kind not in TensorProto.DataType.values():
            raise InputError(
                f"{info.name!r} has the unknown type {kind}", "the file is damaged, or newer than onnx here"
            )
    for tensor in tensors_of(model):
        claimed = byte_size(tensor)
        if tensor.data_location != TensorProto.EXTERNAL and claimed > WIDEST * size:
            raise InputError(
                f"tensor {tensor.name!r} claims {claimed} bytes in a file of {size}", "the file is damaged"
            )
    for tensor in external_tensors(model):
        external.span(tensor)
