"""How fast the original and the folded model are on onnxruntime, in interleaved runs."""
