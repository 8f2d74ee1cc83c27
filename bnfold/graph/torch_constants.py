"""Constants that a program computes from nothing but its own tensors: a normalised weight, a permuted one, a range.

Nothing is computed before it is asked for. Smooth arithmetic on floats is done in float64, so that a weight is rounded
once, at the end; anything else (roundings, comparisons, bits) is computed as the program computes it.
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
        self._known: dict[fx.Node, Callable[[bool], Any]] = {}

    def hold(self, node: fx.Node, tensor: Tensor) -> None:
        """A tensor that the program stores."""
        self._known[node] = lambda _: tensor

    def add(self, node: fx.Node) -> bool:
        """True if the node is a constant too: a pure operator that reads nothing else."""
        if not _pure(node) or not all(used in self._known for used in node.all_input_nodes):
            return False
        self._known[node] = lambda wide: self._run(node, wide)
        return True

    def value(self, node: fx.Node) -> Tensor:
        """The constant that a node makes. Raises NotEvaluable."""
        try:
            with torch.no_grad():
                found = self._known[node](True)
        except Exception as error:  # an operator may raise anything at all
            raise NotEvaluable(f"{node.name} can't be computed: {' '.join(str(error).split())[:200]}") from error
        made = node.meta.get("val")
        if not isinstance(found, Tensor) or (isinstance(made, Tensor) and found.shape != made.shape):
            raise NotEvaluable(f"{node.name} is not what the program says")
        return found

    def _run(self, node: fx.Node, wide: bool) -> Any:
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        looks = node.target is operator.getitem or is_view(node) or name in MOVES
        looks = looks and not str(node.target).endswith(".dtype")  # which looks at the bits
        wide = wide and (looks or name in SMOOTH)

        def read(used: fx.Node) -> Any:
            held = self._known[used](wide)
            widen = wide and not looks and isinstance(held, Tensor) and held.is_floating_point()
            return held.detach().double() if widen else held

        target: Any = node.target
        args, kwargs = fx.map_arg((node.args, node.kwargs), read)
        return target(*args, **kwargs)


SMOOTH = frozenset(
    """
    add sub rsub mul div neg sqrt rsqrt reciprocal pow exp abs square sum mean norm linalg_vector_norm linalg_norm
    linalg_matrix_norm _weight_norm _weight_norm_interface mm matmul
    """.split()  # noqa: SIM905
)
"""Arithmetic that is the better, the more bits it is done in."""

MOVES = frozenset("clone contiguous cat stack expand_as flip roll repeat index_select constant_pad_nd".split())  # noqa: SIM905
"""What puts entries elsewhere, as they are."""


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
