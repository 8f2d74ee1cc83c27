"""The operators that draw other numbers each time: they are neither evaluated, nor merged, nor compared by runs."""

from __future__ import annotations

import numpy as np

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graphs, Node, Value

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""The ONNX operators that always do."""

SHAPE_ONLY = frozenset({"RandomNormalLike", "RandomUniformLike"})
"""Of those, the ones that ask nothing of their input but its shape and type."""


def is_random(node: Node) -> bool:
    """Return True for an operator that draws numbers: these, Dropout unless it is surely not training, some of torch's.

    One with a seed is among them: two of one seed may be one generator or two, as the runtime likes.
    """
    return node.op in RANDOM or node.draws or (node.op == "Dropout" and _may_train(node))


def _may_train(node: Node) -> bool:
    if node.opset < 7:
        return not node.attr("is_test", 0)
    value = node.input(2)
    if value is None:
        return False
    constants = node.graph.constants
    try:
        return not constants.is_constant(value) or bool(np.any(constants.evaluate(value)))
    except NotEvaluable:
        return True


def random_outputs(graphs: Graphs) -> list[int]:
    """Return the places of the outputs that depend on numbers which each run draws anew: those without a seed."""
    random: set[Value | None] = set()

    def draws(node: Node) -> bool:
        if any(value in random for value in node.inputs) or (is_random(node) and node.attr("seed") is None):
            return True
        bodies = [graph for _, graph in graphs.bodies.get(node, ())]
        return any(value in random for graph in bodies for value in graph.outputs) or any(
            draws(inner) for graph in bodies for inner in graph.nodes
        )

    main = graphs.scopes[0]
    for node in main.nodes:
        if draws(node):
            random.update(node.live_outputs)
    return [place for place, value in enumerate(main.outputs) if value in random]
