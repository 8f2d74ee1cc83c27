"""Read a model: bytes or a file in, a checked ModelProto out. Nothing in it is executed."""

from __future__ import annotations

import contextlib
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from bnfold.errors import InputError, unreadable
from bnfold.io.external import ExternalData, byte_size, external_tensors, placeholder_of, tensors_of
from bnfold.io.sniff import is_text, kind_of, may_be_torch
from bnfold.io.source import BytesSource, FileSource, Source
from bnfold.io.tensor_data import Stored
from bnfold.io.wire import separate

LIMIT = 2**31 - 1
"""Bytes that protobuf can hold in one message."""

HEAD = 64
"""Bytes that tell what is no ONNX model and may not be torch's either."""

WIDEST = 8
"""Bytes of data that one byte of a packed field can stand for, at most: a double written as one varint."""


KINDS = {
    "pt2": "a PyTorch exported program (.pt2)",
    "torchscript": "a TorchScript archive",
    "pickle": "a pickled module",
}
"""What files that are not ONNX are called."""


STDIN = "<stdin>"
IN_MEMORY = "<ModelProto>"
"""What models without a file are called in messages."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was read: ``proto`` holds its structure and small tensors, ``external`` gives the data of all.

    ``path`` is None for standard input, and for a model that was made in memory (which has no ``source``).
    """

    path: Path | None
    proto: ModelProto
    source: Source
    external: ExternalData

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.source.name if self.path is None else str(self.path)

    @property
    def sha256(self) -> str:
        """Of the model file."""
        return self.source.sha256

    @property
    def size(self) -> int:
        """Bytes of the model file."""
        return self.source.size

    @classmethod
    def of(cls, proto: ModelProto, external: ExternalData | None = None) -> LoadedModel:
        """A model that was made in memory and has no bytes of its own yet."""
        return cls(None, proto, BytesSource(b"", IN_MEMORY), external or ExternalData(None))


def load(source: str | Path) -> LoadedModel:
    """Load an ONNX model from a path, or from standard input for ``-``. Raises InputError."""
    if str(source) == "-":
        if sys.stdin is None:
            raise InputError("<stdin>: standard input is closed", "name a file")
        return load_bytes(sys.stdin.buffer.read())
    path = Path(source)
    file = FileSource(path)
    file.hash_ahead()
    return parsed(file, path)


def load_bytes(data: bytes, name: str = STDIN) -> LoadedModel:
    """Parse and check the bytes of an ONNX model, called ``name`` in messages. Raises InputError."""
    return parsed(BytesSource(data, name), None)


def parsed(source: Source, path: Path | None) -> LoadedModel:
    """Parse and check the model that ``source`` holds; ``path`` says where its external data may lie.

    Raises InputError.
    """
    if source.size > LIMIT:
        raise InputError(f"{source.name}: over 2 GiB in one file", "save it with external data")
    name, head = source.name, source.read(0, min(HEAD, source.size))
    if (kind := kind_of(source.read(0, source.size) if may_be_torch(head) else head, name, source.size)) != "onnx":
        raise InputError(f"{name}: {KINDS[kind]}; only ONNX models can be read here", "give an .onnx file")
    skeleton, cuts = separate(source.read, source.size)
    proto = ModelProto()
    try:
        proto.ParseFromString(skeleton)
    except DecodeError as error:
        if is_text(head):
            raise InputError(f"{name}: a text file, not an ONNX model", "give the .onnx file itself") from None
        raise InputError(
            f"{name}: not an ONNX model, or a truncated one", "check that the export or the download was complete"
        ) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError(f"{name}: not an ONNX model: it has no graph", "give the .onnx file itself")
    heads = {
        placeholder: tensor.SerializeToString()
        for tensor in tensors_of(proto)
        if (placeholder := placeholder_of(tensor)) in cuts
    }
    marked = {
        placeholder: Stored(source, *cut.data, cut.message, heads[placeholder]) for placeholder, cut in cuts.items()
    }
    external = ExternalData(None if path is None else path.parent, dict(marked))
    with readable((name, proto)):
        try:
            _check(proto, external, source.size)
        except InputError as error:
            raise InputError(f"{name}: {error}", error.hint) from None
    return LoadedModel(path, proto, source, external)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises InputError."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder, not a model", "name the .onnx or .pt2 file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: not a regular file", "give the model's file itself")
        if path.stat().st_size > LIMIT:
            raise InputError(f"{path}: over 2 GiB in one file", "save it with external data")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


@contextlib.contextmanager
def readable(*models: tuple[str, ModelProto | Callable[[], ModelProto]]) -> Iterator[None]:
    """Refuse names that are not UTF-8: protobuf gives them as bytes, which shows in all kinds of failures.

    They are only looked for once something has failed: a walk over all names takes longer than a fold. A model that
    may have been changed by then is given as a call that reads it again.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError):
        for name, proto in models:
            if _has_odd_text(proto() if callable(proto) else proto):
                raise InputError(f"{name}: a name in it is not UTF-8", "the file is damaged") from None
        raise


def _has_odd_text(proto: ModelProto) -> bool:
    """Return True if a string of the message, at any depth, is not UTF-8."""
    pending: list[Any] = [proto]
    try:
        while pending:
            for descriptor, value in pending.pop().ListFields():
                values = [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value
                if descriptor.type == descriptor.TYPE_MESSAGE:
                    pending.extend(values)
                elif descriptor.type == descriptor.TYPE_STRING and any(isinstance(text, bytes) for text in values):
                    return True
    except UnicodeDecodeError:
        return True
    return False


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
