"""PyTorch exported programs: loaded without running anything, read as graphs, edited, saved, converted to ONNX."""
