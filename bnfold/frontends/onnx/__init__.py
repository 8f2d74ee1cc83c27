"""ONNX models: the graph over a ModelProto, its types, and edits that keep the bytes of what is not folded."""
