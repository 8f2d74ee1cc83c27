"""A model as the pieces that are to be written: its structure, and the data that lies or is made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from bnfold.io import wire
from bnfold.io.external import ExternalData, placeholder_of, tensors_of
from bnfold.io.tensor_data import Stored

Pieces = list["bytes | wire.Hole"]


def pieces(model: ModelProto, external: ExternalData) -> Pieces:
    """What to write, in order. A tensor that stayed in its file, unchanged, is its message there, byte by byte."""
    messages: dict[str, int] = {}
    touched: set[str] = set()
    for tensor in tensors_of(model):
        data = external.of_marked(tensor)
        if not isinstance(data, Stored) or data.message is None:
            continue
        placeholder = placeholder_of(tensor)
        if data.head == tensor.SerializeToString():
            messages[placeholder] = data.message[1]
        else:
            touched.add(placeholder)  # renamed, say, where a function's body was put in place of its call
    messages = {placeholder: size for placeholder, size in messages.items() if placeholder not in touched}
    sizes = {placeholder: data.size for placeholder, data in external.marked.items()}
    return wire.assemble(model.SerializeToString(), sizes, messages)


def chunks(parts: Pieces, external: ExternalData) -> Iterator[bytes | memoryview]:
    """The bytes of all pieces; each chunk is gone when the next one is asked for."""
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        data = external.marked[part.placeholder]
        if part.whole and isinstance(data, Stored) and data.message is not None:
            yield from data.source.chunks(*data.message)
        else:
            yield from data.chunks()


def in_memory(model: ModelProto, external: ExternalData) -> ModelProto:
    """The model with all marked data in it, for those who want it as an object."""
    whole = ModelProto()
    whole.ParseFromString(b"".join(map(bytes, chunks(pieces(model, external), external))))
    return whole
