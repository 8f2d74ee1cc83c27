"""What a result says of an ONNX model."""

from __future__ import annotations

from bnfold.io.load import LoadedModel
from bnfold.results.model import ModelInfo


def onnx_info(loaded: LoadedModel) -> ModelInfo:
    """What a report says of an ONNX model."""
    opset = next((entry.version for entry in loaded.proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return ModelInfo(loaded.name, loaded.sha256, "onnx", loaded.proto.ir_version, opset)
