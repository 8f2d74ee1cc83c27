"""ONNX models as the verification compares them: proofs on their graphs, runs on onnxruntime and in float64."""
