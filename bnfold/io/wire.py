"""The wire format of protobuf, as far as it takes to keep a model's large tensors out of memory.

A model is mostly the ``raw_data`` of its tensors. :func:`separate` reads all but that: what it gives protobuf is a
*skeleton*, in which each large tensor has a *placeholder* in place of its data, written as ONNX writes external data.
:func:`assemble` is the inverse: the bytes of a skeleton in which each separated tensor has its data again. ::

    file:      … graph { … initializer { dims, type, name, raw_data: 9 MB } … } …
    skeleton:  … graph { … initializer { dims, type, name, external_data: placeholder } … } …

Whatever is not understood is left where it is: protobuf judges it. Sources: protobuf.dev/programming-guides/encoding,
onnx.proto of ONNX 1.23.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

LARGE = 2**16
"""Bytes of data above which a tensor stays in its file."""

DEEPEST = 100
"""Levels of nesting that protobuf reads."""

WINDOW = 2**16
"""Bytes of structure read at a time."""

PLACEHOLDER = "\0" + os.urandom(16).hex()
"""What the location of a separated tensor starts with. No file can know it, and no path can hold it."""

_NUMBERS = count()
_PREFIX = PLACEHOLDER.encode()
_LENGTH = len(_PREFIX) + 16

LENGTH_DELIMITED = 2
FIXED = {1: 8, 5: 4}

CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
    "function": {7: "node"},
}
"""The fields that may hold a large initializer at any depth, by message and number.

Tensors that are attributes stay: they are part of what a node is, which is compared as a whole; and protobuf merges one
that comes twice.
"""

RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 13, 14

Read = Callable[[int, int], bytes]
"""``length`` bytes from an offset on."""


class _Malformed(Exception):
    """Not what protobuf writes; protobuf will say so in its own words."""


@dataclass(frozen=True)
class TensorSpan:
    """A tensor that stayed in its file: where its whole message lies, and in it the data (offsets and lengths)."""

    message: tuple[int, int]
    data: tuple[int, int]


@dataclass(frozen=True)
class Hole:
    """Where the data of a separated tensor belongs. ``whole``: its message replaces the tensor's own header."""

    placeholder: str
    size: int
    whole: bool


def new_placeholder() -> str:
    """A placeholder that no tensor carries yet."""
    return f"{PLACEHOLDER}{next(_NUMBERS):016x}"


def is_placeholder(location: str) -> bool:
    """Return True for the location of a separated tensor."""
    return location.startswith(PLACEHOLDER)


def separate(read: Read, size: int) -> tuple[bytes, dict[str, TensorSpan]]:
    """The skeleton of a model of ``size`` bytes, and what was cut out of it, by placeholder."""
    cuts: dict[str, TensorSpan] = {}
    try:
        return _skeleton(read, "model", 0, size, cuts, 0) or read(0, size), cuts
    except _Malformed:
        return read(0, size), {}


def _skeleton(read: Read, kind: str, start: int, stop: int, cuts: dict[str, TensorSpan], depth: int) -> bytes | None:
    """A message without its large tensors' data; None if there is nothing to cut."""
    parts: list[bytes] = []
    kept = start
    children = CHILDREN[kind]
    for number, wire, at, body, end in fields(read, start, stop):
        if end - body < LARGE or wire != LENGTH_DELIMITED or number not in children or depth > DEEPEST:
            continue
        if children[number] == "tensor":
            inner = _with_placeholder(read, body, end, cuts)
        else:
            inner = _skeleton(read, children[number], body, end, cuts, depth + 1)
        if inner is not None:
            parts += [read(kept, at - kept), _delimited(number, len(inner)), inner]
            kept = end
    return b"".join([*parts, read(kept, stop - kept)]) if parts else None


def _with_placeholder(read: Read, start: int, stop: int, cuts: dict[str, TensorSpan]) -> bytes | None:
    """A tensor with a placeholder in place of its raw data; None for one that holds its data otherwise, or twice."""
    raw: tuple[int, int, int] | None = None
    for number, wire, at, body, end in fields(read, start, stop):
        if number in (EXTERNAL_DATA, DATA_LOCATION) or (number == RAW_DATA and (raw or wire != LENGTH_DELIMITED)):
            return None
        if number == RAW_DATA:
            raw = at, body, end
    if raw is None or raw[2] - raw[1] < LARGE:
        return None
    at, body, end = raw
    placeholder = new_placeholder()
    cuts[placeholder] = TensorSpan((start, stop - start), (body, end - body))
    return read(start, at - start) + read(end, stop - end) + _pointer(placeholder)


def _pointer(placeholder: str) -> bytes:
    """``external_data { key: "location" value: placeholder } data_location: EXTERNAL``."""
    entry = _delimited(1, 8) + b"location" + _delimited(2, len(placeholder)) + placeholder.encode()
    return _delimited(EXTERNAL_DATA, len(entry)) + entry + varint(DATA_LOCATION << 3) + b"\1"


def assemble(skeleton: bytes, sizes: Mapping[str, int], wholes: Mapping[str, int]) -> list[bytes | Hole]:
    """Return what to write, in order: the skeleton's bytes, and gaps where the data of its separated tensors belongs.

    ``sizes`` are the bytes of each placeholder's data; for those in ``wholes`` a whole message of that size is written.
    """
    places = []
    at = skeleton.find(_PREFIX)
    while at >= 0:
        places.append(at)
        at = skeleton.find(_PREFIX, at + 1)
    if not places:
        return [skeleton]
    return _Assembly(skeleton, places, sizes, wholes).fill("model", 0, len(skeleton))


@dataclass
class _Assembly:
    skeleton: bytes
    places: list[int]
    sizes: Mapping[str, int]
    wholes: Mapping[str, int]

    def fill(self, kind: str, start: int, stop: int) -> list[bytes | Hole]:
        """A message, filled."""
        parts: list[bytes | Hole] = []
        kept = start
        for number, wire, at, body, end in fields(self._read, start, stop):
            first = bisect_left(self.places, body)
            child = CHILDREN[kind].get(number)
            if first == len(self.places) or self.places[first] >= end or child is None or wire != LENGTH_DELIMITED:
                continue
            inner = self._tensor(body, end) if child == "tensor" else self.fill(child, body, end)
            parts += [self.skeleton[kept:at], _delimited(number, length(inner)), *inner]
            kept = end
        return [*parts, self.skeleton[kept:stop]]

    def _tensor(self, start: int, stop: int) -> list[bytes | Hole]:
        """A separated tensor: its fields in the order of their numbers, as protobuf writes them, with its data."""
        at = self.places[bisect_left(self.places, start)]
        placeholder = self.skeleton[at : at + _LENGTH].decode()
        if placeholder in self.wholes:
            return [Hole(placeholder, self.wholes[placeholder], whole=True)]
        before, after = bytearray(), bytearray()
        for number, _, first, _, end in fields(self._read, start, stop):
            if number not in (EXTERNAL_DATA, DATA_LOCATION):
                (before if number < RAW_DATA else after).extend(self.skeleton[first:end])
        size = self.sizes[placeholder]
        return [bytes(before) + _delimited(RAW_DATA, size), Hole(placeholder, size, whole=False), bytes(after)]

    def _read(self, offset: int, size: int) -> bytes:
        return self.skeleton[offset : offset + size]


def length(parts: list[bytes | Hole]) -> int:
    """Return the bytes that parts take."""
    return sum(part.size if isinstance(part, Hole) else len(part) for part in parts)


def fields(read: Read, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the content and end of each field of a message. Raises _Malformed."""
    base, window = start, read(start, min(WINDOW, stop - start))
    at = start
    while at < stop:
        if at - base > len(window) - 20 and base + len(window) < stop:
            base, window = at, read(at, min(WINDOW, stop - at))
        tag, place = _varint(window, at - base)
        wire, end = tag & 7, 0
        if wire == LENGTH_DELIMITED:
            size, place = _varint(window, place)
            end = base + place + size
        elif wire == 0:
            end = base + _varint(window, place)[1]
        elif wire in FIXED:
            end = base + place + FIXED[wire]
        if not at < end <= stop:
            raise _Malformed
        yield tag >> 3, wire, at, base + place, end
        at = end


def _varint(window: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. Raises _Malformed."""
    value = shift = 0
    while at < len(window) and shift < 70:
        byte = window[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Malformed


def _delimited(number: int, size: int) -> bytes:
    """The head of a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(size)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
