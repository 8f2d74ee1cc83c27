"""Products of a value and a constant by labelled axes: any Einsum of the two, and MatMul in any rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_letters

from bnfold.ir.graph import Node, Shape
from bnfold.ir.op_views import constant_shape, split_operands


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
        terms = (_einsum if node.op == "Einsum" else _matmul)(node, operands, source.shape, shape)
        if terms is None or 0 in shape:
            return None
        found = cls(*operands, *terms)
        sizes = dict(zip(found.read, source.shape, strict=True))
        if any(sizes.get(label, size) != size for label, size in zip(found.held, shape, strict=True)):
            return None
        return found


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


def _einsum(node: Node, operands: tuple[int, int], data: Shape, held: tuple[int, ...]) -> tuple[str, str, str] | None:
    equation = split_equation(node)
    if equation is None:
        return None
    read, matrix = (equation[index] for index in operands)
    return (read, matrix, equation[2]) if (len(read), len(matrix)) == (len(data), len(held)) else None


def _matmul(node: Node, operands: tuple[int, int], data: Shape, held: tuple[int, ...]) -> tuple[str, str, str] | None:
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
