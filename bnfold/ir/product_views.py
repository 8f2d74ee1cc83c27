"""Products as rules and proof read them: with one constant matrix, with any constant, of two computed values.

A MatMul or Einsum is each of them as far as it fits; Gemm and torch's Linear are the first, Attention is like the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_letters

import numpy as np

from bnfold.ir.graph import Node, Shape, Value
from bnfold.ir.op_views import constant, constant_shape, split_operands

Axes = tuple[int | None, ...]


def split_equation(node: Node) -> tuple[str, str, str] | None:
    """Return the labels of an Einsum's two operands and of its result; None for one that is written otherwise.

    That is one with an ellipsis, or with a label that an operand has twice.
    """
    terms, arrow, result = str(node.attr("equation", "")).replace(" ", "").partition("->")
    labels = terms.split(",")
    if len(labels) != 2 or not (terms.replace(",", "") + result).isalpha():
        return None
    if not arrow:
        result = "".join(sorted(label for label in set(terms) - {","} if terms.count(label) == 1))
    if any(len(set(term)) < len(term) for term in (*labels, result)) or set(result) - set(terms):
        return None
    return labels[0], labels[1], result


@dataclass(frozen=True)
class MatrixView:
    """A product with one constant matrix: Gemm, torch's Linear, MatMul.

    ``inner`` channels of the input ``data`` lie on ``axis``, as the ``outer`` ones of the output do; the matrix is
    input ``weight``, one row per output if ``rows_are_outputs``.
    """

    data: int
    weight: int
    axis: int
    inner: int
    outer: int
    rows_are_outputs: bool

    @classmethod
    def of(cls, node: Node) -> MatrixView | None:
        """Return the view; None without one constant matrix, or where the input's rank is not known."""
        return {"MatMul": _matrix_of_matmul, "Einsum": _matrix_of_einsum}.get(node.op, _matrix_of_gemm)(node)


def _matrix_of_gemm(node: Node) -> MatrixView | None:
    shape = constant_shape(node, 1)
    rank = None if node.inputs[0] is None else node.inputs[0].rank
    axis = 1 if node.op == "Gemm" else rank - 1 if rank else None
    if axis is None or len(shape) != 2 or 0 in shape:
        return None
    rows_are_outputs = node.op == "Linear" or bool(node.attr("transB", 0))
    outer, inner = shape if rows_are_outputs else shape[::-1]
    return MatrixView(0, 1, axis, inner, outer, rows_are_outputs)


def _matrix_of_matmul(node: Node) -> MatrixView | None:
    operands = split_operands(node)
    if operands is None:
        return None
    data, index = operands
    source, shape = node.inputs[data], constant_shape(node, index)
    rank = None if source is None else source.rank
    if rank is None or rank < 2 or not 2 <= len(shape) <= rank or any(n != 1 for n in shape[:-2]) or 0 in shape:
        return None
    axis = rank - 1 if data == 0 else rank - 2
    inner, outer = shape[-2:] if data == 0 else shape[:-3:-1]
    return MatrixView(data, index, axis, inner, outer, index == 0)


def _matrix_of_einsum(node: Node) -> MatrixView | None:
    """An einsum of a value and a constant matrix that replaces one axis by another, in its place: ``bic,oc->bio``."""
    operands, equation = split_operands(node), split_equation(node)
    if operands is None or equation is None:
        return None
    (data, index), result = operands, equation[2]
    read, matrix, source, shape = equation[data], equation[index], node.inputs[data], constant_shape(node, index)
    inside = [label for label in matrix if label in read]
    if len(matrix) != 2 or len(inside) != 1 or len(shape) != 2 or 0 in shape:
        return None
    inner, outer = inside[0], matrix.replace(inside[0], "")
    if result != read.replace(inner, outer) or source is None or source.rank != len(read):
        return None
    rows_are_outputs = matrix[0] == outer
    sizes = shape[::-1] if rows_are_outputs else shape
    return MatrixView(data, index, read.index(inner), sizes[0], sizes[1], rows_are_outputs)


@dataclass(frozen=True)
class LabelledProduct:
    """``y[result] = sum of x[read] * k[held]`` over the labels that ``result`` lacks; each term has a label once.

    ``data`` and ``constant`` are the indices of x and k among the inputs. An axis that both have is as long in both.
    """

    data: int
    constant: int
    read: str
    held: str
    result: str

    @property
    def labels(self) -> str:
        """All labels, those of the result first."""
        return self.result + "".join(sorted(set(self.read + self.held) - set(self.result)))

    @classmethod
    def of(cls, node: Node) -> LabelledProduct | None:
        """Return the view; None for two values or two constants, for shapes that are not known or may be broadcast."""
        operands = split_operands(node)
        source = None if operands is None else node.inputs[operands[0]]
        if operands is None or source is None or source.shape is None:
            return None
        shape = constant_shape(node, operands[1])
        terms = (_labels_of_einsum if node.op == "Einsum" else _labels_of_matmul)(node, operands, source.shape, shape)
        if terms is None or 0 in shape:
            return None
        found = cls(*operands, *terms)
        sizes = dict(zip(found.read, source.shape, strict=True))
        if any(sizes.get(label, size) != size for label, size in zip(found.held, shape, strict=True)):
            return None
        return found


def _labels_of_einsum(
    node: Node, operands: tuple[int, int], data: Shape, held: tuple[int, ...]
) -> tuple[str, str, str] | None:
    equation = split_equation(node)
    if equation is None:
        return None
    read, matrix = (equation[index] for index in operands)
    return (read, matrix, equation[2]) if (len(read), len(matrix)) == (len(data), len(held)) else None


def _labels_of_matmul(
    node: Node, operands: tuple[int, int], data: Shape, held: tuple[int, ...]
) -> tuple[str, str, str] | None:
    """The last two axes are rows and columns; those before them are broadcast, a constant vector has no such axis.

    Onnxruntime's FusedMatMul may swap the two.
    """
    swapped = [bool(node.attr(name, 0)) for name in ("transA", "transB")]
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        return None
    if len(data) < 2 or not held or len(data) + len(held) > len(ascii_letters) // 2:
        return None
    fresh = iter(ascii_letters)
    inner, row, column = (next(fresh) for _ in range(3))
    first, second = (data, held) if operands[0] == 0 else (held, data)
    ends = [(row if len(first) > 1 else "") + inner, inner + (column if len(second) > 1 else "")]
    ends = [end[::-1] if swap else end for end, swap in zip(ends, swapped, strict=True)]
    lead: list[list[str]] = [[], []]
    result: list[str] = []
    for one, other in _from_the_last(first[:-2], second[:-2]):
        label = next(fresh)
        for side, size, twin in ((0, one, other), (1, other, one)):
            if size == 0:
                continue  # this operand has no such axis
            alone = size == 1 and twin not in (0, 1)  # it is repeated
            lead[side].insert(0, next(fresh) if alone else label)
        result.insert(0, label)
    labels = ["".join(axes) + end for axes, end in zip(lead, ends, strict=True)]
    made = "".join(result) + ends[0].replace(inner, "") + ends[1].replace(inner, "")
    return labels[operands[0]], labels[operands[1]], made


def _from_the_last(first: Shape, second: Shape) -> Iterator[tuple[object, object]]:
    """The sizes of both from the last to the first, 0 where one has no such axis."""
    for place in range(1, max(len(first), len(second)) + 1):
        yield (
            first[-place] if place <= len(first) else 0,
            second[-place] if place <= len(second) else 0,
        )


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
        return _axes_of_einsum(node, first, second) if node.op == "Einsum" else _axes_of_matmul(first.rank, second.rank)

    def summed(self, operand: int) -> int:
        """Return the axis of an operand that is summed over."""
        return self.axes[operand].index(None)


def _axes_of_matmul(first: int, second: int) -> ProductView | None:
    if first < 2 or second < 2:
        return None
    rank = max(first, second)
    left = (*range(rank - first, rank - 1), None)
    right = (*range(rank - second, rank - 2), None, rank - 1)
    return ProductView((left, right), rank)


def _axes_of_einsum(node: Node, first: Value, second: Value) -> ProductView | None:
    """One label in both terms and not in the result, every other one in it."""
    equation = split_equation(node)
    if equation is None or [len(term) for term in equation[:2]] != [first.rank, second.rank]:
        return None
    *labels, result = equation
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
