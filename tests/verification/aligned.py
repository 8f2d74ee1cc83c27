"""Two models beside each other, as the proof reads them."""

from __future__ import annotations

import onnx
from onnx import inliner

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import Alignment, align


def aligned(original: onnx.ModelProto, folded: onnx.ModelProto) -> Alignment:
    """Return what the proof finds; functions are inlined, initializers taken for constants."""
    graphs = [
        OnnxGraphs(inliner.inline_local_functions(m) if m.functions else m, freeze=True) for m in (original, folded)
    ]
    return align(*graphs)


def assert_aligned(original: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    """Assert that the proof finds both equal."""
    found = aligned(original, folded)
    assert (found.mismatches, found.wrong_outputs) == ([], {})
