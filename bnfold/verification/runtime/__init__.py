"""Runs on onnxruntime, each in a process of its own: devices, inputs, limits."""
