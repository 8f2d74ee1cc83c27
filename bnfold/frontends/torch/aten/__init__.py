"""ATen operators in ONNX's terms, one file per operator family."""
