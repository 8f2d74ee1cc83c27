"""Which axes a product of two tensors keeps, and which one it sums over: MatMul, Einsum that is no more, Attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant

Axes = tuple[int | None, ...]


@dataclass(frozen=True)
class ProductView:
    """A product of two tensors that sums over one axis: ``out[.., i, j] = sum over k of A[.., i, k] B[.., k, j]``.

    ``axes`` holds, for each operand and each of its axes, that axis of the output; None for the one that is summed
    over. ``rank`` is the output's.
    """

    axes: tuple[Axes, Axes]
    rank: int

    @classmethod
    def of(cls, node: Node) -> ProductView | None:
        """Return the view of a MatMul or an Einsum; None where ranks are not known, or it is another kind of sum."""
        first, second = (node.input(index) for index in (0, 1))
        if len(node.inputs) != 2 or first is None or second is None or first.rank is None or second.rank is None:
            return None
        return _einsum(node, first, second) if node.op == "Einsum" else _matmul(first.rank, second.rank)

    def summed(self, operand: int) -> int:
        """Return the axis of an operand that is summed over."""
        return self.axes[operand].index(None)


def _matmul(first: int, second: int) -> ProductView | None:
    if first < 2 or second < 2:
        return None
    rank = max(first, second)
    left = (*range(rank - first, rank - 1), None)
    right = (*range(rank - second, rank - 2), None, rank - 1)
    return ProductView((left, right), rank)


def _einsum(node: Node, first: Value, second: Value) -> ProductView | None:
    """Two terms without repeated labels, one label in both of them and not in the result, every other one in it."""
    terms, arrow, result = str(node.attr("equation", "")).replace(" ", "").partition("->")
    labels = terms.split(",")
    if not arrow or "." in terms or [len(term) for term in labels] != [first.rank, second.rank]:
        return None
    if any(len(set(term)) < len(term) for term in (*labels, result)) or set(result) - set(terms):
        return None
    over = set(labels[0]) & set(labels[1]) - set(result)
    if len(over) != 1 or (set(labels[0]) ^ set(labels[1])) - set(result):
        return None
    left, right = (tuple(None if label in over else result.index(label) for label in term) for term in labels)
    return ProductView((left, right), len(result))


@dataclass(frozen=True)
class AttentionView:
    """An Attention (opset 23) as a product of weights and values: which ``axes`` of the output those of the values are.

    ``is_mean``: the weights sum to 1, since each query sees a key, and there is one.
    """

    axes: Axes
    is_mean: bool

    @classmethod
    def of(cls, node: Node) -> AttentionView | None:
        """Return the view; None where values of former calls come in or go out, or several queries share a head."""
        query, values = node.input(0), node.input(2)
        if query is None or values is None or query.shape is None or values.shape is None or node.outputs[0] is None:
            return None
        if len(node.live_outputs) > 1 or any(node.input(index) is not None for index in (4, 5, 6)):
            return None
        rank = len(values.shape)
        if rank == 4:
            heads = [shape[1] for shape in (query.shape, values.shape)]
        else:
            heads = [node.attr("q_num_heads"), node.attr("kv_num_heads")]
        if rank not in (3, 4) or len(query.shape) != rank or None in heads or heads[0] != heads[1]:
            return None
        axes = (0, 1, None, 3) if rank == 4 else (0, None, 2)
        keys, queries = values.shape[-2], query.shape[-2]
        some = keys > 0 if isinstance(keys, int) else keys is not None and keys == queries
        return cls(axes, some and _sees_keys(node) and node.attr("softmax_precision", 1) in (1, 11))


def _sees_keys(node: Node) -> bool:
    """Return True if no mask hides all keys of a query. A causal one shows the first."""
    mask = node.input(3)
    if mask is None:
        return True
    if node.attr("is_causal", 0) or not node.graph.constants.is_constant(mask):
        return False
    data = constant(node, 3)
    shown = data if data.dtype == bool else data.astype(np.float64) > -np.inf
    return bool(shown.ndim > 0 and shown.any(axis=-1).all())
