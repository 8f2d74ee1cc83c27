"""What an operator says, read once: layouts of weights, padding, bounds, cuts, constant operands.

The rules of folding and the semantics of the equivalence proof both read operators here; what follows from it is
worked out by each on its own. Source: the ONNX operator pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node

LONGEST = 4096
"""Entries of a constant that is a list: of axes, sizes, places."""


def constant(node: Node, index: int) -> NDArray[Any]:
    """Return the data of a constant input. Raises NotEvaluable."""
    value = node.inputs[index]
    assert value is not None
    return node.graph.constants.evaluate(value)


def constant_shape(node: Node, index: int) -> tuple[int, ...]:
    """Return the shape of a constant input, read off without its data where that is possible."""
    value = node.inputs[index]
    assert value is not None
    shape = value.shape
    if shape is not None and all(isinstance(n, int) for n in shape):
        return tuple(int(n) for n in shape if n is not None)
    return np.shape(constant(node, index))


def integers(node: Node, name: str, index: int) -> list[int] | None:
    """Return a list of integers that older opsets give as an attribute and newer ones as a constant input.

    None where it is absent, or computed at run time. Raises NotEvaluable for one that is absurdly long.
    """
    if name in node.attrs:
        return [int(value) for value in node.attrs[name]]
    value = node.input(index)
    if value is None or not node.graph.constants.is_constant(value):
        return None
    if prod(constant_shape(node, index)) > LONGEST:
        raise NotEvaluable(f"{value.name!r} is too long to be a list of axes, sizes or places")
    return [int(entry) for entry in np.asarray(constant(node, index)).reshape(-1)]


def sizes(node: Node, name: str, index: int) -> list[int | None] | None:
    """Return what :func:`integers` does, as far as it is known before a run: None for an entry that is not.

    Raises NotEvaluable for one that is absurdly long.
    """
    found = integers(node, name, index)
    if found is not None:
        return list(found)
    entries = node.graph.constants.entries(node.input(index))
    return None if entries is None else [n if isinstance(n, int) else None for n in entries.reshape(-1).tolist()]


def keeps_type(node: Node) -> bool:
    """Return True for a Cast or CastLike to the type that its input has already: it computes nothing.

    The type comes from what the node says, never from what a file states of its output.
    """
    if node.op not in ("Cast", "CastLike") or not node.outputs or node.outputs[0] is None or node.inputs[0] is None:
        return False
    own = node.inputs[0].dtype
    if node.op == "CastLike":
        like = node.input(1)
        return own is not None and like is not None and own == like.dtype
    from onnx import helper

    try:
        return own is not None and helper.np_dtype_to_tensor_dtype(own) == node.attr("to")
    except (KeyError, ValueError):
        return False


def split_operands(node: Node) -> tuple[int, int] | None:
    """Return ``(index of the data, index of the constant)`` of a binary operator; None if there are not both."""
    if len(node.inputs) != 2 or None in node.inputs:
        return None
    is_constant = [node.graph.constants.is_constant(value) for value in node.inputs]
    if is_constant[0] == is_constant[1]:
        return None
    return (0, 1) if is_constant[1] else (1, 0)


@dataclass(frozen=True)
class ConvView:
    """A Conv or ConvTranspose whose weight has a known ``shape``: ``(C_out, C_in / group, *kernel)``, or transposed.

    ``is_transposed`` weights are ``(C_in, C_out / group, *kernel)``; ``is_valid`` is False where the groups don't
    divide the channels or there is no position.
    """

    node: Node
    shape: tuple[int, ...]

    @classmethod
    def of(cls, node: Node) -> ConvView:
        """Return the view of a node whose weight is constant. Raises NotEvaluable."""
        return cls(node, constant_shape(node, 1))

    @property
    def group(self) -> int:
        """The number of groups."""
        return int(self.node.attr("group", 1))

    @property
    def is_transposed(self) -> bool:
        """True for ConvTranspose."""
        return self.node.op == "ConvTranspose"

    @property
    def is_valid(self) -> bool:
        """True if the weight has positions, and the groups divide its channels."""
        return len(self.shape) >= 3 and self.group >= 1 and self.shape[0] % self.group == 0 and 0 not in self.shape

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return self.shape[0] if self.is_transposed else self.shape[1] * self.group

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        return self.shape[1] * self.group if self.is_transposed else self.shape[0]

    @property
    def output_axis(self) -> int | None:
        """The axis of the weight that counts the output channels, if one does so alone."""
        if not self.is_transposed:
            return 0
        return 1 if self.group == 1 else None

    @property
    def auto_pad(self) -> str:
        """How the padding is found; an empty text is NOTSET, as onnxruntime reads it."""
        return self.node.attr("auto_pad", "NOTSET") or "NOTSET"

    def pads(self) -> list[int] | None:
        """Return the zeros before each axis of positions, then those behind; None where they are not known."""
        positions = range(len(self.shape) - 2)
        none = [0 for _ in (*positions, *positions)]
        if self.auto_pad == "NOTSET":
            pads = list(self.node.attr("pads", none))
            return pads if len(pads) == len(none) else None
        if self.auto_pad == "VALID":
            return none
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER") or self.is_transposed:
            return None
        source = None if self.node.inputs[0] is None else self.node.inputs[0].shape
        sizes = source[2:] if source is not None and len(source) == len(self.shape) else [None for _ in positions]
        ones = [1 for _ in positions]
        strides, dilations = self.node.attr("strides", ones), self.node.attr("dilations", ones)
        begin, end = [], []
        for size, kernel, stride, dilation in zip(sizes, self.shape[2:], strides, dilations, strict=True):
            reach = dilation * (kernel - 1) + 1
            if not isinstance(size, int) and reach > 1:
                return None
            total = max((-(-size // stride) - 1) * stride + reach - size, 0) if isinstance(size, int) else 0
            less = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
            begin.append(less)
            end.append(total - less)
        return begin + end

    @property
    def may_read_padding(self) -> bool:
        """True unless the operator provably reads nothing beyond its input."""
        pads = self.pads()
        return pads is None or any(pads)


def gemm_term_fits(node: Node, outer: int) -> bool:
    """Return True if C of a Gemm is absent, or one number or one per output in each row."""
    terms = constant_shape(node, 2) if node.input(2) is not None else ()
    return len(terms) <= 2 and terms[-1:] in ((), (1,), (outer,))


def exponent_of(node: Node) -> float | None:
    """Return the power that a Pow, Sqrt or Reciprocal raises to, 1 for Abs; None for other or computed ones."""
    if node.op != "Pow":
        return {"Abs": 1.0, "Sqrt": 0.5, "Reciprocal": -1.0}.get(node.op)
    value, source = node.input(1), node.input(0)
    if value is None or source is None or not node.graph.constants.is_constant(value) or constant(node, 1).size != 1:
        return None
    if constant(node, 1).ndim > (source.rank or 0):
        return None
    found = float(constant(node, 1).astype(np.float64).reshape(()))
    return found if np.isfinite(found) else None


def clip_bounds(node: Node) -> tuple[float | None, float | None] | None:
    """Return the lower and the upper bound of a Clip, None for one that is absent.

    None altogether where a bound is computed at run time, or is not one number.
    """
    found: list[float | None] = []
    for name, index in (("min", 1), ("max", 2)):
        if node.opset < 11:
            found.append(node.attr(name))
        elif node.input(index) is None:
            found.append(None)
        elif not node.graph.constants.is_constant(node.input(index)) or constant(node, index).size != 1:
            return None
        else:
            found.append(float(constant(node, index).astype(np.float64).reshape(())))
    return found[0], found[1]


def slices(node: Node) -> list[tuple[int, slice | None]] | None:
    """Return what a Slice cuts: axes, counted from the first, and spans as Python's slices.

    A span is None where its bounds are computed at run time. None altogether where the axes are, or the input's rank
    is not known.
    """
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    starts, ends, steps = (sizes(node, name, index) for name, index in (("starts", 1), ("ends", 2), ("steps", 4)))
    axes = integers(node, "axes", 3)
    if shape is None or (axes is None and node.input(3) is not None):
        return None
    lengths = [len(found) for found in (axes, starts, ends) if found is not None]
    if not lengths:
        return None
    unknown: list[int | None] = [None] * lengths[0]
    default = unknown if node.input(4) is not None else [1] * lengths[0]
    bounds = zip(starts or unknown, ends or unknown, steps or default, strict=True)
    spans = [None if None in found else slice(*found) for found in bounds]
    axes = list(range(len(spans))) if axes is None else axes
    return [(axis % len(shape), span) for axis, span in zip(axes, spans, strict=True)]


def pool_is_padded(node: Node) -> bool:
    """Return True if a pool's windows may reach beyond its input."""
    return any(node.attr("pads", ())) or node.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def padding(node: Node) -> list[int | None] | None:
    """Return how many entries a Pad puts before each axis, then behind each: None for one that is not known.

    None altogether where the axes are not known.
    """
    pads = sizes(node, "pads", 1) or sizes(node, "paddings", 1)
    if pads is None or node.input(3) is None:
        return pads
    axes, rank = integers(node, "axes", 3), None if node.inputs[0] is None else node.inputs[0].rank
    if axes is None or rank is None or len(pads) != 2 * len(axes):
        return None
    found: list[int | None] = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        found[axis % rank], found[axis % rank + rank] = pads[place], pads[place + len(axes)]
    return found


def pad_value(node: Node) -> float | None:
    """Return the number that a Pad of mode *constant* puts around; None where it is computed at run time."""
    if node.opset < 11 or node.input(2) is None:
        return float(node.attr("value", 0.0))
    if not node.graph.constants.is_constant(node.input(2)):
        return None
    return float(constant(node, 2).astype(np.float64).reshape(()))
