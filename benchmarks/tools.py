"""The tools that people use today, each doing its best on a model file. Both comparisons use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def optimise(tool: str, source: str, target: str) -> None:
    """Let ``tool`` do its best on a model file."""
    if tool.startswith("bnfold"):
        from bnfold.api import FoldOptions, fold

        fold(source, target, FoldOptions(verify=None, threshold="threshold" in tool), force=True)
    elif tool == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = target
        if is_large(source):
            entries = {"file_name": f"{Path(target).name}.data", "min_size_in_bytes": "1024"}
            for key, value in entries.items():
                options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    elif tool == "onnxsim":
        import onnx
        from onnxsim import simplify

        save(simplify(onnx.load(source))[0], source, target)
    elif tool == "onnxslim":
        import onnxslim

        onnxslim.slim(source, target, save_as_external_data=is_large(source))
    elif tool == "onnxoptimizer":
        import onnx
        import onnxoptimizer

        passes = onnxoptimizer.get_fuse_and_elimination_passes()
        save(onnxoptimizer.optimize(onnx.load(source), passes), source, target)
    else:
        import onnx
        from onnxscript import optimizer, rewriter

        save(rewriter.rewrite(optimizer.optimize(onnx.load(source))), source, target)


def is_large(source: str) -> bool:
    """True for a model with external data: the result needs some too."""
    return Path(f"{source}.data").exists()


def save(model: Any, source: str, target: str) -> None:
    """Write a model, with external data if the source has some."""
    import onnx

    large = is_large(source)
    onnx.save(model, target, save_as_external_data=large, location=f"{Path(target).name}.data" if large else None)
