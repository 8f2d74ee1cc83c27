"""The condition of "To Fold or Not to Fold" beside bnfold's folds, BatchNorm by BatchNorm.

``python -m tests.fidelity.yvinec_condition MODEL...`` prints, for each ONNX model, how many BatchNormalizations it
has, how many the condition calls foldable, how many bnfold folds, and those of which the two say different things.

Yvinec, Dapogny, Bailly: "To Fold or Not to Fold: a Necessary and Sufficient Condition on Batch-Normalization Layers
Folding" (IJCAI 2022). A BatchNorm folds into the linear layers (*roots*) that all paths from it reach before any
activation, if everything else that reads or makes what they do (*leaves*) is reached so too and no layer is both. The
condition is asked of one after the other, those that went before being gone. It knows nothing of numbers: padding,
gains of zero, or scales that pass a Relu.
"""

from __future__ import annotations

import sys
from collections.abc import Set
from pathlib import Path

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load
from bnfold.ir.graph import Graph, Node
from bnfold.planner.plan import Fold
from bnfold.planner.planner import plan

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "BatchNormalization"})
AFFINE = frozenset(
    """
    Add Sub Sum Concat Identity Dropout Flatten Reshape Transpose Squeeze Unsqueeze Pad Slice Split Gather
    AveragePool GlobalAveragePool ReduceMean Resize
    """.split()  # noqa: SIM905
)
"""What transforms pass, as the condition sees it."""


def is_layer(node: Node, gone: Set[Node]) -> bool:
    """Return True for a layer whose weights take a transform; BatchNorms that are ``gone`` are none any more."""
    if node in gone:
        return False
    return node.op in LINEAR or (node.op == "MatMul" and any(map(node.graph.constants.is_constant, node.inputs)))


def ends(node: Node, gone: Set[Node], *, forward: bool) -> set[Node] | None:
    """Return the layers at which all paths from a node end; None if one meets an activation, or an end of the graph."""
    found: set[Node] = set()
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        values = current.live_outputs if forward else [v for v in current.inputs if v is not None][:1]
        if not forward and current.op in ("Add", "Sub", "Sum", "Concat"):
            values = [v for v in current.inputs if v is not None and not current.graph.constants.is_constant(v)]
        for value in values:
            if value.is_output if forward else value.producer is None:
                return None
            for beside in value.consumers if forward else [value.producer]:
                assert beside is not None
                if is_layer(beside, gone):
                    found.add(beside)
                elif beside.op not in AFFINE and beside not in gone:
                    return None
                elif beside not in seen:
                    seen.add(beside)
                    pending.append(beside)
    return found


def folds(node: Node, gone: Set[Node], *, forward: bool) -> bool:
    """Return True if the condition holds of a BatchNormalization in one direction."""
    roots: set[Node] = set()
    leaves, open_ = {node}, ends(node, gone, forward=forward)
    while open_:
        root = open_.pop()
        roots.add(root)
        reached = ends(root, gone, forward=not forward)
        if reached is None:
            return False
        for leaf in reached - leaves:
            leaves.add(leaf)
            more = ends(leaf, gone, forward=forward)
            if more is None:
                return False
            open_ |= more - roots
        if not roots.isdisjoint(leaves):
            return False
    return open_ is not None and bool(roots)


def compared(graph: Graph) -> tuple[set[str], set[str], set[str]]:
    """Return the names of all BatchNormalizations, of those that the condition folds, and of those that bnfold does."""
    norms = [node for node in graph.nodes if node.op == "BatchNormalization"]
    outcomes = plan(graph, scales=True, threshold=False).outcomes
    ours = {op.name for op, outcome in outcomes if isinstance(outcome, Fold) and op.form == "BatchNormalization"}
    gone: set[Node] = set()
    for node in norms:
        if folds(node, gone, forward=False) or folds(node, gone, forward=True):
            gone.add(node)
    return {node.name for node in norms}, {node.name for node in gone}, ours


def main() -> None:
    """See the module."""
    total = [0, 0, 0, 0]
    for path in map(Path, sys.argv[1:]):
        model = load(path)
        (graph, *_) = OnnxGraphs(model.proto, model.external).scopes
        known, theirs, ours = compared(graph)
        counts = [len(known), len(theirs), len(ours), len(theirs - ours)]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        print(path.name, *counts, sorted(theirs - ours)[:2], flush=True)
    print("all: BatchNormalizations, condition, bnfold, condition alone:", *total)


if __name__ == "__main__":
    main()
