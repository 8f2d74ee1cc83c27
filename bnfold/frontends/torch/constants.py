"""Constants that a program computes from nothing but its own tensors: a normalised weight, a permuted one, a range.

Nothing is computed before it is asked for. Smooth arithmetic on floats is done in float64, so that a weight is rounded
once, at the end; anything else (roundings, comparisons, bits) is computed as the program computes it.
"""

from __future__ import annotations

import operator
from collections import Counter
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from bnfold.frontends.torch.functionalize import is_view
from bnfold.ir.constant_folding import FEW, GROWTH
from bnfold.ir.evaluation import MOST_ELEMENTS, NotEvaluable

Step = tuple[fx.Node, bool]
"""A node, and whether what is made of it is done in float64."""


class Computed:
    """Which nodes are constants, and how to compute each. Nodes are added in order, held tensors first."""

    def __init__(self) -> None:
        self._held: dict[fx.Node, Tensor] = {}
        self._computed: set[fx.Node] = set()

    def hold(self, node: fx.Node, tensor: Tensor) -> None:
        """A tensor that the program stores."""
        self._held[node] = tensor

    def add(self, node: fx.Node) -> bool:
        """Return True if the node is a constant too: a pure operator that reads nothing else."""
        if not _pure(node) or not all(used in self._held or used in self._computed for used in node.all_input_nodes):
            return False
        self._computed.add(node)
        return True

    def value(self, node: fx.Node) -> Tensor:
        """The constant that a node makes. Raises NotEvaluable."""
        try:
            with torch.no_grad():
                found = self._evaluated((node, True))
        except NotEvaluable:
            raise
        except Exception as error:  # an operator may raise anything at all
            raise NotEvaluable(f"{node.name} can't be computed: {' '.join(str(error).split())[:200]}") from error
        made = node.meta.get("val")
        if not isinstance(found, Tensor) or (isinstance(made, Tensor) and found.shape != made.shape):
            raise NotEvaluable(f"{node.name} is not what the program says")
        return found

    def _evaluated(self, asked: Step) -> Any:
        """Evaluate one step after those before it; a result is freed after its last consumer, and few may be held."""
        order = self._order(asked)
        consumers = Counter(used for step in order for used in self._reads(step))
        budget = max(
            FEW, GROWTH * sum(self._held[node].numel() for node in {step[0] for step in order} & set(self._held))
        )
        results: dict[Step, Any] = {}
        for step in order:
            budget -= _size(step[0])
            if budget < 0:
                raise NotEvaluable(f"{asked[0].name} is computed from too many numbers")
            results[step] = self._held.get(step[0]) if step[0] in self._held else self._run(step, results)
            for used in self._reads(step):
                consumers[used] -= 1
                if not consumers[used]:
                    del results[used]
                    budget += _size(used[0])
        return results[asked]

    def _order(self, asked: Step) -> list[Step]:
        """A step and all that it is computed from, inputs first, each once."""
        order: dict[Step, None] = {}
        stack = [(asked, False)]
        while stack:
            step, ready = stack.pop()
            if ready:
                order[step] = None
            elif step not in order:
                stack.append((step, True))
                stack.extend((used, False) for used in self._reads(step))
        return list(order)

    def _reads(self, step: Step) -> list[Step]:
        node, wide = step
        wide = wide and (_only_moves_entries(node) or _name(node) in SMOOTH)
        return [] if node in self._held else [(used, wide) for used in node.all_input_nodes]

    def _run(self, step: Step, results: dict[Step, Any]) -> Any:
        node, wide = step
        looks = _only_moves_entries(node)
        wide = wide and (looks or _name(node) in SMOOTH)

        def read(used: fx.Node) -> Any:
            held = results[used, wide]
            widen = wide and not looks and isinstance(held, Tensor) and held.is_floating_point()
            return held.detach().double() if widen else held

        target: Any = node.target
        args, kwargs = fx.map_arg((node.args, node.kwargs), read)
        return target(*args, **kwargs)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _only_moves_entries(node: fx.Node) -> bool:
    """Return True for what puts entries elsewhere, and does not look at their bits."""
    moves = node.target is operator.getitem or is_view(node) or _name(node) in MOVES
    return moves and not str(node.target).endswith(".dtype")


def _size(node: fx.Node) -> int:
    made = node.meta.get("val")
    parts = made if isinstance(made, tuple | list) else [made]
    return sum(part.numel() for part in parts if isinstance(part, Tensor))


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
    """Return True for a call that always makes the same, of a size known in advance, and touches nothing else."""
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
