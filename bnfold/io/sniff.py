"""Tell what a file is by its content, never by its suffix. Nothing is unpickled to look inside."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Literal

from bnfold.errors import InputError
from bnfold.io.source import FileSource

Kind = Literal["onnx", "pt2", "torchscript", "pickle"]

ZIP = b"PK\x03\x04"
LEGACY_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9")
KERAS = "export it from Keras: model.export('model.onnx', format='onnx')"

LEGACY_HEADERS = 3
"""Pickles before the object itself in torch's old format: a magic number, the protocol, the machine."""

TENSORS_ONLY = frozenset(
    {
        "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v3", "torch.serialization _get_layout", "collections OrderedDict", "torch Size",
        "torch device",
    }
)  # fmt: skip
"""Globals that a pickle of nothing but tensors needs, besides torch's storage classes and dtypes."""


def may_be_torch(head: bytes) -> bool:
    """Return True if a file that starts so is a zip archive or a pickle, as torch writes."""
    return head.startswith(ZIP) or head[:1] == b"\x80"


def kind_of(data: bytes, name: str, size: int | None = None) -> Kind:
    """Return what ``data`` is; ``onnx`` for all that is nothing else. Raises InputError for what can't be read.

    Of what can't be torch's the first bytes are enough, with the ``size`` of it all.
    """
    if data.startswith(ZIP):
        return _archive(data, name)
    if data.startswith(LEGACY_PICKLE) or data[:1] == b"\x80":
        if tensors_only(data, name):
            raise _weights_only(name)
        return "pickle"
    _refuse_others(data[:64], len(data) if size is None else size, name)
    return "onnx"


def kind_of_source(source: FileSource) -> Kind:
    """Return what a file is, by its content; only what may be torch's is read whole for that. Raises InputError."""
    from bnfold.io.sniff import kind_of, may_be_torch

    head = source.read(0, min(16, source.size))
    return kind_of(source.read(0, source.size), source.name) if may_be_torch(head) else "onnx"


def _archive(data: bytes, name: str) -> Kind:
    from bnfold.io.archive import member_names, read_archive

    members = member_names(data, name)
    if any(member.startswith("data/aotinductor/") for member in members):
        raise InputError(f"{name}: a compiled package (AOTInductor)", "give the .pt2 that torch.export.save wrote")
    if "archive_format" in members and any(member.startswith("models/") for member in members):
        return "pt2"
    if "serialized_exported_program.json" in members:
        raise InputError(f"{name}: a .pt2 of an older torch", "save it again with a current torch")
    if "data.pkl" in members and "constants.pkl" in members and any(m.startswith("code/") for m in members):
        return "torchscript"
    if "data.pkl" in members:
        if tensors_only(read_archive(data, name).members["data.pkl"], name):
            raise _weights_only(name)
        return "pickle"
    if "model.weights.h5" in members:
        raise InputError(f"{name}: a Keras model", KERAS)
    raise InputError(f"{name}: a zip archive that holds no model", "give the .onnx or .pt2 file itself")


def _weights_only(name: str, kind: str = "a state_dict") -> InputError:
    return InputError(f"{name}: weights only ({kind}), no graph", "export the model: torch.export.save, or to ONNX")


def tensors_only(data: bytes, name: str) -> bool:
    """Return True if the pickle names no global beyond those that tensors need. Raises InputError for a damaged one."""
    try:
        return all(_harmless(found) for found in _globals(data))
    except Exception as error:  # pickletools raises many kinds for damaged pickles
        raise InputError(f"{name}: a damaged pickle ({error})", "was the download or the save cut short?") from None


def _harmless(found: str) -> bool:
    module, _, attribute = found.partition(" ")
    storage = module in ("torch", "torch.storage") and attribute.endswith("Storage") and attribute.isidentifier()
    dtype = module == "torch" and attribute.rstrip("0123456789") in (
        "float",
        "int",
        "uint",
        "bfloat",
        "complex",
        "bool",
    )
    return found in TENSORS_ONLY or storage or dtype


def _globals(data: bytes) -> Iterator[str]:
    """Every global that a pickle asks for, as ``module name``; ``?`` where only running it would show it."""
    import pickletools

    file = io.BytesIO(data)
    for _ in range(1 + (LEGACY_HEADERS if data.startswith(LEGACY_PICKLE) else 0)):
        for opcode, argument, _position in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument)
            elif opcode.name == "STACK_GLOBAL" or opcode.name.startswith("EXT"):
                yield "?"


def shares_containers(data: bytes) -> bool:
    """True if a pickle holds one list, tuple or dict in several places: nested, that can stand for any number."""
    import pickletools

    containers: set[object] = set()
    previous, count = "", 0
    for opcode, argument, _position in pickletools.genops(data):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            place = count if name == "MEMOIZE" else int(argument or 0)
            count += 1
            if "TUPLE" in previous or "LIST" in previous or "DICT" in previous:
                containers.add(place)
        elif "GET" in name and int(argument or 0) in containers:
            return True
        previous = name
    return False


def is_text(head: bytes) -> bool:
    """Return True if a file that starts so is text; only sure of what is no model."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a character that the end of ``head`` cuts
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def _refuse_others(head: bytes, size: int, name: str) -> None:
    """Raise InputError if a file that starts with ``head`` is evidently something else than ONNX."""
    if size == 0:
        raise InputError(f"{name}: the file is empty", "check that the export or the download was complete")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{name}: a Git LFS pointer, not the model", "run: git lfs pull")
    if head.startswith(b"\x89HDF"):
        raise InputError(f"{name}: a Keras model (HDF5)", KERAS)
    if head.startswith(b"ORTM", 4):
        raise InputError(f"{name}: onnxruntime's own .ort format", "fold the .onnx file that it was made from")
    if head.startswith(b"TFL3", 4):
        raise InputError(f"{name}: a TFLite model", "fold before the conversion to TFLite")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise _weights_only(name, "safetensors")
    if b"<net" in head or head.lstrip().startswith(b"<?xml"):
        raise InputError(f"{name}: an OpenVINO model", "fold the ONNX model that it was converted from")
    if head.lstrip()[:1] in (b"{", b"<"):
        raise InputError(f"{name}: a text file, not an ONNX model", "give the .onnx file itself")
