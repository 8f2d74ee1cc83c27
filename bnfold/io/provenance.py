"""Provenance metadata of an ONNX model: which bnfold wrote it, from which source, with which options."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

PREFIX = "bnfold."
"""What the keys begin with."""

VERSION, OPTIONS = PREFIX + "version", PREFIX + "options"
SOURCE, SOURCE_DIGEST = PREFIX + "source", PREFIX + "source_sha256"


def write_provenance(model: ModelProto, notes: Mapping[str, str]) -> None:
    """Write entries; each replaces the one of the same key."""
    for key, value in notes.items():
        entry = next((entry for entry in model.metadata_props if entry.key == key), None)
        if entry is None:
            model.metadata_props.add(key=key, value=value)
        else:
            entry.value = value


def provenance_of(model: ModelProto) -> dict[str, str]:
    """Return the provenance metadata of a model, whatever wrote it: data from a file."""
    return {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(PREFIX)}
