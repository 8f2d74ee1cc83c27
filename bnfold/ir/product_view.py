"""Which axes a product of two tensors keeps, and which one it sums over: MatMul, and Einsum that is no more."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.ir.graph import Node, Value

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
