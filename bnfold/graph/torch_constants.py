"""Constants that a program computes from nothing but its own tensors: a normalised weight, a permuted one, a range.

Nothing is computed before it is asked for. Floats are computed in float64, so that a weight is rounded once, at the
end; what merely looks at a tensor in another way keeps its type.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from bnfold.graph.constants import MOST_ELEMENTS, NotEvaluable
from bnfold.graph.torch_prepare import is_view


class Computed:
    """Which nodes are constants, and how to compute each. Nodes are told in order, held tensors first."""

    def __init__(self) -> None:
        self._known: dict[fx.Node, Callable[[], Any]] = {}

    def hold(self, node: fx.Node, tensor: Tensor) -> None:
        """A tensor that the program stores."""
        self._known[node] = lambda: tensor

    def add(self, node: fx.Node) -> bool:
        """True if the node is a constant too: a pure operator that reads nothing else."""
        if not _pure(node) or not all(used in self._known for used in node.all_input_nodes):
            return False
        self._known[node] = lambda: self._run(node)
        return True

    def value(self, node: fx.Node) -> Tensor:
        """The constant that a node makes. Raises NotEvaluable."""
        try:
            with torch.no_grad():
                found = self._known[node]()
        except Exception as error:  # an operator may raise anything at all
            raise NotEvaluable(f"{node.name} can't be computed: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(found, Tensor):
            raise NotEvaluable(f"{node.name} is no tensor")
        return found

    def _run(self, node: fx.Node) -> Any:
        looks = node.target is operator.getitem or is_view(node)

        def read(used: fx.Node) -> Any:
            held = self._known[used]()
            wide = isinstance(held, Tensor) and held.is_floating_point() and not looks
            return held.detach().double() if wide else held

        target: Any = node.target
        args, kwargs = fx.map_arg((node.args, node.kwargs), read)
        return target(*args, **kwargs)


def _pure(node: fx.Node) -> bool:
    """True for a call that always makes the same, of a size known in advance, and touches nothing else."""
    made = node.meta.get("val")
    parts = made if isinstance(made, tuple | list) else [made]
    sizes = [list(part.shape) for part in parts if isinstance(part, Tensor)]
    if not sizes or not all(type(n) is int for shape in sizes for n in shape):
        return False
    if any(prod(shape) > MOST_ELEMENTS for shape in sizes):
        return False
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function" and target is operator.getitem
    chance = torch.Tag.nondeterministic_seeded in target.tags or "rand" in str(target) or "empty" in str(target)
    writes = target._schema.is_mutable or "batch_norm" in str(target) or "instance_norm" in str(target)
    return not chance and not writes
