"""A ModelProto as bytes, piece by piece: what protobuf would write, without holding the weights twice.

Protobuf writes known fields by number. The graph is one field of the model and its initializers are one
field of the graph, so the bytes are: the model's fields before the graph, the graph's before the
initializers, each initializer, the rest of the graph, the rest of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from onnx import ModelProto

from bnfold.errors import OutputError
from bnfold.files.load import LIMIT

GRAPH, INITIALIZER = "graph", "initializer"


def pieces(model: ModelProto) -> Iterator[bytes]:
    """The bytes of ``model``, in order. Raises OutputError where they exceed what protobuf can hold."""
    before, after = _around(model, GRAPH)
    head, tail = _around(model.graph, INITIALIZER)
    size = len(head) + len(tail) + _initializers_size(model)
    if size > LIMIT:
        raise OutputError("the model does not fit into one file of 2 GiB", "use --external-data always")
    yield before
    yield _tag(model, GRAPH) + _varint(size)
    yield head
    for tensor in model.graph.initializer:
        data: bytes = tensor.SerializeToString()
        yield _tag(model.graph, INITIALIZER) + _varint(len(data))
        yield data
    yield tail
    yield after


def fits(model: ModelProto) -> bool:
    """True if the model's bytes do not exceed what protobuf can hold in one file."""
    return _initializers_size(model) <= LIMIT


def _initializers_size(model: ModelProto) -> int:
    """The bytes of all initializers. Asked one by one: protobuf finds a message's size by writing it out."""
    tag = len(_tag(model.graph, INITIALIZER))
    sizes = (tensor.ByteSize() for tensor in model.graph.initializer)
    return sum(tag + len(_varint(size)) + size for size in sizes)


def _around(message: Any, field: str) -> tuple[bytes, bytes]:
    """The bytes of all fields of lower, and of all of higher number than ``field``; unknown ones come last."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    before, after = type(message)(), type(message)()
    for descriptor, value in message.ListFields():
        if descriptor.number != number:
            _copy(before if descriptor.number < number else after, descriptor.name, value)
    return before.SerializeToString(), after.SerializeToString() + _unknown(message)


def _copy(target: Any, name: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    elif hasattr(value, "extend") or hasattr(value, "MergeFrom"):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)


def _unknown(message: Any) -> bytes:
    """The fields of ``message`` itself that this version of ONNX does not know, as they were."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    if not len(UnknownFieldSet(message)):
        return b""
    bare = type(message)()
    bare.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        bare.ClearField(descriptor.name)
    data: bytes = bare.SerializeToString()
    return data


def _tag(message: Any, field: str) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
