"""Tell what a file is by its content, never by its suffix, and refuse what can't be an ONNX model."""

from __future__ import annotations

from bnfold.errors import InputError

LEGACY_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9")


def refuse_other_formats(head: bytes, size: int, name: str) -> None:
    """Raise InputError if a file that starts with ``head`` is evidently something else than ONNX."""
    if size == 0:
        raise InputError(f"{name}: the file is empty", "was the download or the export cut short?")
    if head.startswith(b"PK\x03\x04"):
        raise InputError(
            f"{name}: a zip archive, as torch writes .pt2 and .pt files; only ONNX is read so far",
            "export the model with torch.onnx.export and fold that",
        )
    if head.startswith(LEGACY_PICKLE) or head[:1] == b"\x80":
        raise InputError(
            f"{name}: a pickle, which could run code when it is loaded",
            "export the model with torch.onnx.export and fold that",
        )
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{name}: a Git LFS pointer, not the model", "run: git lfs pull")
    if head.startswith(b"\x89HDF"):
        raise InputError(f"{name}: an HDF5 file (Keras)", "convert it with tf2onnx first")
    if head.startswith(b"ORTM", 4):
        raise InputError(f"{name}: onnxruntime's own .ort format", "fold the .onnx file that it was made from")
    if head.startswith(b"TFL3", 4):
        raise InputError(f"{name}: a TFLite model", "fold before the conversion to TFLite")
    if head.lstrip()[:1] in (b"{", b"<"):
        raise InputError(f"{name}: a text file, not an ONNX model", "give the .onnx file itself")
