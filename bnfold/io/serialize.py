"""A model as the parts of a file: its structure, and the data that is stored or computed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from bnfold.io import wire
from bnfold.io.external import ExternalData, placeholder_of, tensors_of
from bnfold.io.tensor_data import Stored

Parts = list["bytes | wire.Hole"]


def parts_of(model: ModelProto, external: ExternalData) -> Parts:
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


def chunks(parts: Parts, external: ExternalData) -> Iterator[bytes | memoryview]:
    """The bytes of all parts; each chunk is freed when the next one is asked for."""
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
    """The model with all marked data in it, for callers that want it as an object."""
    whole = ModelProto()
    whole.ParseFromString(b"".join(map(bytes, chunks(parts_of(model, external), external))))
    return whole
