"""What an HTML report tells beside the result that it is about: plans, sizes, weights before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.report.page import Story
from bnfold.report.results import Comparison, Folding, Inspection, as_comparison

if TYPE_CHECKING:
    from bnfold.bench import Benchmark


def of_inspection(found: Inspection) -> Story:
    """A model alone."""
    return Story(found.model.path, found)


def of_folding(found: Folding) -> Story:
    """A fold that was done."""
    sizes = [
        ("nodes", f"{found.nodes['before']:,}", f"{found.nodes['after']:,}"),
        ("bytes", f"{found.bytes['before']:,}", f"{found.bytes['after']:,}"),
    ]
    model, output = found.inspection.model.path, None if found.output is None else found.output.path
    weights = {} if output in (None, "-") else _weights(model, str(output))
    return Story(model, found.inspection, as_comparison(found), sizes=sizes, weights=weights)


def of_comparison(found: Comparison) -> Story:
    """A verification: the original is inspected for it."""
    sizes = _sizes(found.original.path, found.folded.path)
    weights = _weights(found.original.path, found.folded.path)
    return Story(found.folded.path, _inspected(found.original.path), found, sizes=sizes, weights=weights)


def of_benchmark(found: Benchmark) -> Story:
    """A benchmark: sizes and latencies."""
    sizes = [
        ("nodes", f"{found.nodes['original']:,}", f"{found.nodes['folded']:,}"),
        ("bytes", f"{found.bytes['original']:,}", f"{found.bytes['folded']:,}"),
    ]
    for level in found.levels:
        times = (level.original, level.folded)
        sizes.append((f"latency, level {level.level}", *(f"{t.median:.3f} ± {t.spread:.3f} ms" for t in times)))  # type: ignore[arg-type]
    original, folded = found.original.path, found.folded.path
    return Story(folded, _inspected(original), benchmark=found, sizes=sizes, weights=_weights(original, folded))


def _inspected(path: str) -> Inspection | None:
    from bnfold.api import inspect
    from bnfold.errors import BnfoldError

    try:
        return inspect(path)
    except BnfoldError:  # standard input, which is gone, or a model that needs --allow-unsafe-load
        return None


def _sizes(original: str, folded: str) -> list[tuple[str, str, str]]:
    before, after = (f"{Path(path).stat().st_size:,}" if Path(path).is_file() else "" for path in (original, folded))
    return [("bytes of the file", before, after)]


def _weights(original: str, folded: str) -> dict[str, Any]:
    """The tensors of the layers that have other weights after the fold, by the layer's name."""
    import numpy as np

    from bnfold.errors import BnfoldError

    try:
        before, after = _tensors(original), _tensors(folded)
    except BnfoldError:
        return {}
    pairs = {name: (before[name], after[name]) for name in before if name in after}
    return {
        name: (old(), new())
        for name, (old, new) in pairs.items()
        if old().size > 1 and not (old().shape == new().shape and np.array_equal(old(), new()))
    }


def _tensors(path: str) -> dict[str, Any]:
    """The weights of linear layers, each as a call that reads it."""
    from bnfold.api import FoldOptions
    from bnfold.files.load import LoadedModel
    from bnfold.graph.onnx import OnnxGraphs
    from bnfold.opening import opened

    model = opened(path, FoldOptions(verify=None))
    if not isinstance(model, LoadedModel):
        state = model.program.state_dict
        return {name: (lambda t=t: t.detach().float().numpy()) for name, t in state.items() if t.dim() > 1}
    found: dict[str, Any] = {}
    for node in OnnxGraphs(model.proto, model.external).scopes[0].nodes:
        for value in node.inputs[:2] if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul") else ():
            if value is not None and value.tensor is not None and node.name not in found:
                found[node.name] = value.tensor
    return found
