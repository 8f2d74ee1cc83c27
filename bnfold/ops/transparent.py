"""Operators that pass a map on unchanged."""

from __future__ import annotations

from bnfold.affine import Affine
from bnfold.graph import Node
from bnfold.ops import Flood, Rule, Spread, constant
from bnfold.reasons import Kept


def pass_on(node: Node, flood: Flood) -> Spread:
    """The first input and the first output carry the same map."""
    source = node.inputs[0]
    assert source is not None
    before, after = flood.given(source), flood.given(node.output)
    if before is not None and after is not None:
        if before.agrees(after):
            return [[]]
        return Kept("consumers", f"{node.op} {node.name!r} would need two different maps")
    known: Affine | None = before or after
    assert known is not None
    return [[(node.output if after is None else source, known)]]


def _dropout(node: Node, flood: Flood) -> Spread:
    """Dropout at inference: opset 12 and later by its training_mode input, opsets 1 and 6 by ``is_test``."""
    constants = node.graph.constants
    training = node.input(2)
    if node.opset >= 12 and training is not None:
        if not constants.is_constant(training) or constant(node, 2).any():
            return Kept("training-mode", f"Dropout {node.name!r} is in training mode")
    if node.opset < 7 and not node.attr("is_test", 0):
        return Kept("training-mode", f"Dropout {node.name!r} is in training mode: is_test is 0")
    if any(value.readers or value.is_output or value.captured for value in node.live_outputs[1:]):
        return Kept("consumers", f"the mask of Dropout {node.name!r} is read")
    return pass_on(node, flood)


RULES = {
    "Identity": Rule("passes", "passes", pass_on),
    "Dropout": Rule("passes at inference", "passes at inference", _dropout),
}
