"""Exported programs of torch: loaded without running anything, folded by the same rules as ONNX, saved, converted."""
