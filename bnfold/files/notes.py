"""What bnfold notes in the metadata of an ONNX model that it wrote."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto


def note(model: ModelProto, notes: Mapping[str, str]) -> None:
    """Write notes; each replaces the one of the same name."""
    for key, value in notes.items():
        entry = next((entry for entry in model.metadata_props if entry.key == key), None)
        if entry is None:
            model.metadata_props.add(key=key, value=value)
        else:
            entry.value = value
