"""Additions that round: a constant so large beside the activations that adding it is no affine transform.

``(k x + 1.5 * 2**23) - 1.5 * 2**23`` is ``round(k x)`` in float32: fake quantization without a Round. In float64, in
which folds are computed, it is ``k x``, and a fold that takes the constants together, or moves a scale through them,
changes what the network computes. An addition rounds

- where its constant is at least ``2**(p - 1)``, for a type of ``p`` bits: the sum has no fraction left;
- where the constant is taken back further on, and is many times larger than what it is added to: what comes out has
  lost the bits between. The size of activations is taken from BatchNormalizations and weights; inputs are taken for 1.

The same goes for a factor near the end of the type's range that is taken back: it cuts small or large values off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.constant_folding import SMALL
from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine, leading
from bnfold.rules import normalization
from bnfold.rules.forward_transform import forward_transform
from bnfold.rules.operands import aligned_constant, as_affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL
from bnfold.rules.table import lookup

Array = NDArray[np.float64]

BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
"""Bits of the significand."""

EXPONENT = {"bfloat16": 127, "float16": 15, "float32": 127, "float64": 1023}
"""The largest exponent."""

LEFT = 16
"""Bits that an addition must leave of the activations: finer fake quantization than to 16 bits is not in use."""

FARTHEST = 64
"""Operators up to which a constant is looked for that takes another back."""

BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Linear": 2}
"""Where linear operators read what they add."""

TRANSPARENT = frozenset({"Identity", "Relu", "LeakyRelu", "Clip", "Dropout", "Min", "Max"})
"""Operators that act on each value by itself, between an addition and what takes it back."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Mean"})
STEPS = ARITHMETIC | {"BatchNormalization"}


@dataclass(frozen=True)
class _Step:
    """A node as ``y = map(x)``; ``offset`` is the constant that the runtime adds, ``floats`` the type's name.

    ``rest`` is what several constants come to together, where ``offset`` is their sizes.
    """

    source: Value
    transform: Affine
    offset: Array
    floats: str
    rest: Array | None = None


def refusal(node: Node) -> Refusal:
    """Return why an addition that rounds carries no transform."""
    return Refusal("nonlinear", f"{node.label} adds a constant so large that it rounds the activations")


def rounding_nodes(graph: Graph) -> frozenset[Node]:
    """The nodes of a graph whose constants are so large, or so small, that they round. Found once per graph."""
    known = graph.constants.rounding.get(graph)
    if known is None:
        with np.errstate(all="ignore"):
            known = graph.constants.rounding[graph] = frozenset(_found(graph))
    return known


def _found(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        try:
            if node.op in BIASES:
                yield from _bias_taken_back(node)
            elif node.op == "BatchNormalization" and not _shifts_far(node):
                continue  # nearly all of them: decided at a glance
            elif (step := _step(node)) is not None:
                whole = step.floats in BITS and _has_no_fraction_left(step.offset, step.floats)
                if whole or (step.rest is not None and _takes_itself_back(step, step.rest)):
                    yield node
                else:
                    yield from _taken_back(node, step)
        except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
            continue  # a node that contradicts itself has no transform either


def _shifts_far(norm: Node) -> bool:
    """Return True for a BatchNormalization whose bias is many times its scale in every channel."""
    own, floats = normalization.inference(norm), _floats(norm)
    if isinstance(own, Refusal) or floats not in BITS:
        return False
    bias = np.abs(own[1].bias)
    return bool(
        (bias > _least(floats) * np.abs(own[1].scale)).all() or bias.max(initial=0.0) >= 2.0 ** (BITS[floats] - 1)
    )


def _has_no_fraction_left(offset: Array, floats: str) -> bool:
    """True if the type's numbers are whole at the size of what is added. An infinite one hides what it is added to."""
    return bool(((np.abs(offset) >= 2.0 ** (BITS[floats] - 1)) & np.isfinite(offset)).any())


def _bias_taken_back(node: Node) -> Iterator[Node]:
    """A linear operator whose bias is large beside what it is added to, in most channels, and what takes it back."""
    value, floats = node.input(BIASES[node.op]), _floats(node)
    if value is None or floats not in BITS or not node.graph.constants.is_constant(value):
        return
    offset = constant(node, BIASES[node.op]).astype(np.float64)
    if offset.ndim != 1 or not offset.any():
        return
    axis, least = (node.output.rank or 2) - 1 if node.op == "Linear" else 1, _least(floats)
    added = Affine.along(axis, np.ones_like(offset), offset)
    bound: Array | None = None
    for other, since in _behind(node, added):
        if _mostly_larger(offset, least * _rest(other, since).reshape(-1)):
            bound = least * _rows(node) * _size(node.inputs[0]) if bound is None else bound
            if _mostly_larger(offset, bound):
                yield node
                yield other


def _least(floats: str) -> float:
    """Return how many times larger than the activations a constant leaves too few bits of them."""
    return 2.0 ** max(4, BITS[floats] - LEFT)


def _rest(other: Node, since: Affine) -> Array:
    """What is left of an offset behind ``other``, or how wide the values are that it normalises, where that is more."""
    rest = np.abs(since.shift / since.gain)
    if other.op == "BatchNormalization" and not isinstance(own := normalization.inference(other), Refusal):
        width = np.abs(own[1].scale.reshape((1, -1)) / since.gain)
        rest = np.maximum(*np.broadcast_arrays(*leading(rest, width)))
    return np.asarray(rest)


def _mostly_larger(offset: Array, bound: Array | float) -> bool:
    bound = np.asarray(bound)
    return bound.size in (1, offset.size) and bool((np.abs(offset) > bound).mean() > 0.5)


def _rows(node: Node) -> Array:
    """The length of each row of a linear operator's weight: by how much it enlarges independent inputs."""
    weight = constant(node, 1).astype(np.float64)
    transposed = node.op == "ConvTranspose" or (node.op == "Gemm" and not node.attr("transB", 0))
    first = 1 if transposed else 0
    rows = np.moveaxis(weight, first, 0).reshape(weight.shape[first], -1)
    norms = np.sqrt(np.square(rows).sum(axis=1))
    return np.tile(norms, node.attr("group", 1)) if node.op == "ConvTranspose" else norms


def _floats(node: Node) -> str:
    types = (value.dtype for value in (node.live_outputs[0] if node.live_outputs else None, *node.inputs) if value)
    return next((dtype.name for dtype in types if dtype is not None), "")


def _step(node: Node) -> _Step | None:
    """A node that adds or multiplies by constants; None for any other, and for large constants that stand alone."""
    if node.op not in STEPS or not node.live_outputs or _is_large_and_alone(node):
        return None
    if node.op == "BatchNormalization":
        own = normalization.inference(node)
        return None if isinstance(own, Refusal) else _Step(own[0], own[1].affine(), own[1].bias, _floats(node))
    if node.op in ("Sum", "Mean"):
        return _sum(node)
    step = as_affine(node)
    if step is None or isinstance(step, Refusal):
        return None
    return _Step(step[0], step[1], step[1].shift, _floats(node))


def _sum(node: Node) -> _Step | None:
    """A Sum or Mean with constants as what it adds to the first of its values; of several constants their sizes."""
    held = [index for index, value in enumerate(node.inputs) if node.graph.constants.is_constant(value)]
    data = [index for index in range(len(node.inputs)) if index not in held]
    source = node.inputs[data[0]] if data and held else None
    found = [aligned_constant(node, data[0], index) for index in held] if source is not None else []
    added = [constant for constant in found if not isinstance(constant, Refusal)]
    if source is None or len(added) < len(held):
        return None
    total = np.asarray(sum(added if len(added) == 1 else map(np.abs, added)))
    count = len(node.inputs) if node.op == "Mean" else 1
    rest = np.abs(np.asarray(sum(added)))
    return _Step(source, Affine.of(1.0 / count, total / count), total, _floats(node), rest)


def _is_large_and_alone(node: Node) -> bool:
    """Return True for a constant of many elements, an embedding of positions say, whose sum no arithmetic reads."""
    shapes = [value.shape for value in node.inputs if value is not None and node.graph.constants.is_constant(value)]
    large = any(shape and prod(size for size in shape if isinstance(size, int)) > SMALL for shape in shapes)
    return large and not any(consumer.op in ARITHMETIC for consumer in node.output.consumers)


def _takes_itself_back(step: _Step, rest: Array) -> bool:
    """Return True for a Sum of large constants that cancel."""
    least = _least(step.floats) if step.floats in BITS else np.inf
    large = step.offset > least * rest
    return bool(large.any()) and bool((large & (step.offset > least * _size(step.source))).any())


def _taken_back(node: Node, step: _Step) -> Iterator[Node]:
    """The node itself, and each behind it that takes back what it adds, or by what it multiplies."""
    if step.floats not in BITS or not step.transform.finite:
        return
    far = 0.75 * EXPONENT[step.floats]
    factors = np.abs(step.transform.gain[step.transform.gain != 0])
    if node.op != "BatchNormalization" and (np.abs(np.log2(factors)) > far).any():
        for other, since in _behind(node, Affine.of(step.transform.gain, 0.0)):
            if (np.abs(np.log2(np.abs(since.gain[since.gain != 0]))) < far / 3).any():
                yield node
                yield other
        return
    least, is_norm = _least(step.floats), node.op == "BatchNormalization"
    offset = step.offset.reshape((1, -1)) if is_norm else step.offset
    if not offset.any():
        return
    added, size = Affine.of(1.0, offset), None
    for other, since in _behind(node, added):
        if _larger(added.shift, least * _rest(other, since), every=is_norm):
            if size is None:
                size = _scale(node) if is_norm else np.abs(step.transform.gain) * _size(step.source)
            if _larger(added.shift, least * size, every=is_norm):
                yield node
                yield other


def _scale(norm: Node) -> Array:
    """How large a BatchNormalization makes what it normalises."""
    own = normalization.inference(norm)
    assert not isinstance(own, Refusal)
    return np.abs(own[1].scale).reshape((1, -1))


def _larger(numbers: Array, bound: Array, *, every: bool) -> bool:
    first, second = leading(np.abs(numbers), bound)
    found = first > second
    return bool(found.all() if every else found.any())


def _behind(node: Node, start: Affine) -> Iterator[tuple[Node, Affine]]:
    """Each addition or multiplication behind a node, with the transform from before the node to behind it."""
    pending = [(node.output, start)]
    seen: set[Node] = set()
    while pending and len(seen) < FARTHEST:
        value, transform = pending.pop()
        for consumer in value.consumers:
            if consumer in seen or not consumer.live_outputs:
                continue
            seen.add(consumer)
            step = _step(consumer)
            if step is not None and step.source is value and step.transform.fits(transform):
                transform_after = step.transform.after(transform)
                yield consumer, transform_after
                pending.append((consumer.output, transform_after))
            elif consumer.op in TRANSPARENT:
                pending.append((consumer.output, transform))
            elif consumer.inputs[0] is value and consumer.op not in BIASES:
                pending += (forward_transform(consumer, transform) or {}).items()


def _size(value: Value | None) -> float:
    """How large a value may be: by a BatchNormalization and the weights behind it; an input is taken for 1."""
    factor, offset = 1.0, 0.0
    for _ in range(FARTHEST):
        node = None if value is None else value.producer
        if node is None or not node.inputs:
            break
        step = _step(node)
        if node.op == "BatchNormalization" and step is not None:
            return factor * float(_scale(node).max(initial=0.0) + np.abs(step.offset).max(initial=0.0)) + offset
        if step is not None:
            offset += factor * float(np.abs(step.transform.shift).max(initial=0.0))
            factor *= float(np.abs(step.transform.gain).max(initial=0.0))
            value = step.source
            continue
        if node.op in BIASES:
            factor *= float(_rows(node).max(initial=0.0))
        elif lookup(node.op) is None:
            break
        value = node.inputs[0]
    return factor + offset
