"""How large the activations of a network are, per channel, as far as its BatchNorms and weights tell.

A BatchNorm holds the mean and the variance of what it reads, and its bias and scale are those of what it makes. From
there sizes follow through the operators in between: layout operators move them, a sum adds them up, a linear layer
mixes them. They are estimates, taken as independent normal numbers; inputs of the model, and what operators make of
which nothing is known, are taken for mean 0 and deviation 1. Nothing that is exact depends on them: they say what a
fold costs.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import ConvView, constant
from bnfold.ir.product_views import MatrixView
from bnfold.numerics.affine import IDENTITY, LARGEST, Affine, leading
from bnfold.numerics.batchnorm import BatchNorm
from bnfold.numerics.linear import response
from bnfold.rules import normalization
from bnfold.rules.forward_transform import carried
from bnfold.rules.operands import as_affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL, weight

Array = NDArray[np.float64]

MOST = 2**16
"""Channels beyond which one size is kept for all of a value."""

LARGEST_WEIGHT = 2**22
"""Elements of a weight that are read to estimate a size: planning is to read few."""

FARTHEST = 8
"""Operators behind a value up to which a BatchNorm is looked for that says how large it is."""

MOVES = frozenset({"Concat", "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
"""Operators that change no number, so that what is known of their output is known of their inputs."""

RECTIFIERS = frozenset({"Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Gelu", "Softplus", "HardSwish", "Mish"})
AVERAGES = frozenset({"GlobalAveragePool", "AveragePool", "ReduceMean"})
INDEPENDENT = 64
"""Numbers that an average is taken of which count as independent: neighbours in an image are not."""

LARGE = 2**12
"""Entries of a constant above which it is not evaluated: no channels are that many, and sizes are estimates."""

SUMS = frozenset({"Add", "Sub", "Sum"})
LINEAR = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Linear": 2, "MatMul": None}
"""Linear operators, and where they read their bias."""


def statistics_of(node: Node) -> BatchNorm | None:
    """Return the parameters of a node that is a BatchNormalization at inference."""
    if node.op != "BatchNormalization" or node.input(0) is None or not is_made(node):
        return None
    try:
        own = normalization.inference(node)
    except (NotEvaluable, *INCONSISTENT_MODEL):
        return None
    return None if isinstance(own, Refusal) else own[1]


def per_channel(node: Node) -> tuple[Value, Affine] | Refusal | None:
    """Return the affine transform of an elementwise operator; None for one of large constants, which cost memory."""
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    constants = node.graph.constants
    shapes = [v.shape for v in node.inputs if v is not None and constants.is_constant(v)]
    if any(shape is None or prod(n if isinstance(n, int) else 1 for n in shape) > LARGE for shape in shapes):
        return None
    return as_affine(node)


def is_made(node: Node) -> bool:
    """Return True if the node's first output is there: named, and not the empty name of an absent one."""
    return bool(node.outputs) and node.outputs[0] is not None


def deviation(bn: BatchNorm) -> Array:
    """Return the deviation of what a BatchNorm reads; epsilon counts unless it is above every variance."""
    return np.sqrt(bn.var + min(bn.epsilon, float(bn.var.max(initial=0.0))))


class ActivationSizes:
    """The sizes of one graph's values, found when they are asked for: ``deviation * z + mean`` as a transform of z."""

    def __init__(self) -> None:
        self._known: dict[Value, Affine] = {}

    def of(self, value: Value) -> Affine:
        """Return deviation (the gain) and mean (the shift) of a value, per channel."""
        pending, begun = [value], set[Value]()
        while pending:
            at = pending[-1]
            needed = [] if at in begun or at in self._known else [v for v in self._needed(at) if v not in self._known]
            begun.add(at)
            if needed:
                pending += needed
            else:
                pending.pop()
                if at not in self._known:
                    self._known[at] = _few(self._found(at))
        return self._known[value]

    def _needed(self, value: Value) -> list[Value]:
        """The values whose sizes say how large ``value`` is."""
        node = value.producer
        if node is None or statistics_of(node) is not None or _read_by_norm(value) is not None:
            return []
        constants = node.graph.constants
        return [v for v in dict.fromkeys(node.inputs) if v is not None and not constants.is_constant(v)]

    def _found(self, value: Value) -> Affine:
        try:
            made_by_norm = value.producer is not None and statistics_of(value.producer) is not None
            found = (
                None if made_by_norm else _read_by_norm(value)
            )  # statistics may contradict each other: its own first
            if found is None and value.producer is not None:
                with np.errstate(all="ignore"):
                    found = self._made(value.producer, value)
        except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
            found = None
        return found if found is not None and found.finite else IDENTITY

    def _made(self, node: Node, value: Value) -> Affine | None:
        """What a node makes of what it reads; None where that is not known."""
        own = statistics_of(node)
        if own is not None:
            width = np.sqrt(own.var + own.epsilon)
            return Affine.along(1, np.abs(own.scale / width) * deviation(own), own.bias)
        inputs = {v: self._known.get(v, IDENTITY) for v in self._needed(value)}
        sizes = list(inputs.values())
        step = per_channel(node)
        if step is not None and not isinstance(step, Refusal):
            moved = step[1].after(inputs[step[0]])
            return Affine.of(np.abs(moved.gain), moved.shift)
        if not sizes:
            return None
        if node.op in SUMS:
            signs = [-1.0 if node.op == "Sub" and v is node.inputs[1] else 1.0 for v in inputs]
            return _sum(sizes, signs)
        if node.op == "Mul" and len(sizes) == 2:
            first, second = together(*(np.hypot(size.gain, size.shift) for size in sizes))
            return Affine.of(first * second, 0.0)
        if node.op in RECTIFIERS:
            return _rectified(sizes[0])
        if node.op in LINEAR:
            return _linear(node, inputs)
        found = (carried(node, inputs) or {}).get(value)
        if found is None or node.op not in AVERAGES:
            return found
        return Affine.of(found.gain / np.sqrt(_averaged(node)), found.shift)


def _read_by_norm(value: Value) -> Affine | None:
    """What a BatchNorm says that reads the value, or reads what operators make of it that change no number."""
    path: list[tuple[Value, Node]] = []
    for _ in range(FARTHEST):
        norm = next((bn for node in value.consumers if (bn := statistics_of(node)) and node.inputs[0] is value), None)
        if norm is not None:
            try:
                return _back(Affine.along(1, deviation(norm), norm.mean), path)
            except INCONSISTENT_MODEL:
                return None
        behind = next((node for node in value.consumers if node.op in MOVES and is_made(node)), None)
        if behind is None:
            return None
        path.append((value, behind))
        value = behind.output
    return None


def _averaged(node: Node) -> int:
    """How many numbers an average is taken of, as far as they are independent; the most where that is not known."""
    source, target = node.inputs[0], node.output
    window = node.attr("kernel_shape")
    if window is not None:
        return min(int(prod(window)), INDEPENDENT)
    before, after = (None if v is None or v.shape is None else v.shape[1:] for v in (source, target))
    if before is None or after is None or not all(isinstance(size, int) for size in (*before, *after)):
        return INDEPENDENT
    count = prod(size for size in before if isinstance(size, int))
    return min(max(count // max(prod(size for size in after if isinstance(size, int)), 1), 1), INDEPENDENT)


def _back(size: Affine, path: list[tuple[Value, Node]]) -> Affine | None:
    for value, node in reversed(path):
        found = (carried(node, {node.output: size}) or {}).get(value)
        if found is None:
            return None
        size = found
    return size


def _sum(sizes: list[Affine], signs: list[float]) -> Affine:
    mean, square = np.zeros(()), np.zeros(())
    for size, sign in zip(sizes, signs, strict=True):
        mean, shift = together(mean, size.shift)
        square, gain = together(square, size.gain)
        mean, square = mean + sign * shift, square + np.square(gain)
    return Affine.of(np.sqrt(square), mean)


def _rectified(size: Affine) -> Affine:
    """Mean and deviation of ``max(x, 0)`` for normal numbers x; the normal distribution by its usual tanh."""
    mean, deviation = size.shift, np.maximum(size.gain, 1e-300)
    z = np.clip(mean / deviation, -8, 8)
    below = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    first = mean * below + deviation * density
    second = (np.square(mean) + np.square(deviation)) * below + mean * deviation * density
    return Affine.of(np.sqrt(np.maximum(second - np.square(first), 0.0)), first)


def _linear(node: Node, inputs: dict[Value, Affine]) -> Affine | None:
    """What a linear operator makes of independent inputs."""
    if len(inputs) != 1:
        return None
    index = LINEAR[node.op]
    if node.op in ("Conv", "ConvTranspose"):
        view = ConvView.of(node)
        if not view.is_valid:
            return None
        axes, at = (1, view.inputs, 1, view.outputs), 1
        shape = (view.group, view.shape[0] // view.group, view.shape[1], prod(view.shape[2:]))
        inputs_first = view.is_transposed
    else:
        matrix = MatrixView.of(node)
        if matrix is None:
            return None
        axes, at = (matrix.axis, matrix.inner, matrix.axis, matrix.outer), matrix.weight
        rows = (matrix.outer, matrix.inner) if matrix.rows_are_outputs else (matrix.inner, matrix.outer)
        shape, inputs_first = (1, *rows, 1), not matrix.rows_are_outputs
    if prod(shape) > LARGEST_WEIGHT:
        return None
    (size,) = inputs.values()
    vectors = size.vectors(*axes[:2]) or _few(size, 1).vectors(*axes[:2])
    if vectors is None:
        return None
    mean, square = response(weight(node, at, shape, inputs_first=inputs_first), vectors[1], np.square(vectors[0]))
    if index is not None and node.input(index) is not None:
        bias = constant(node, index).astype(np.float64).reshape(-1)
        mean = mean + bias if bias.size in (1, mean.size) else mean
    return Affine.along(axes[2], np.sqrt(square), mean)


def together(first: Array, second: Array) -> tuple[Array, Array]:
    """Return both arrays in one rank, to be broadcast against each other; ValueError where shapes contradict that."""
    first, second = leading(first, second)
    if prod(np.broadcast_shapes(first.shape, second.shape)) > LARGEST:
        raise ValueError("sizes that vary along several axes have too many entries")
    return first, second


def _few(size: Affine, most: int = MOST) -> Affine:
    """The size, or one for all channels where there are more than ``most``."""
    if size.gain.size <= most:
        return size
    mean = size.shift.mean()
    return Affine.of(np.sqrt(np.mean(np.square(size.gain) + np.square(size.shift - mean))), mean)


def readers(value: Value) -> list[Node]:
    """Return the consumers of a value, each once; none where it is captured or an output."""
    return [] if value.is_output or value.captured else list(dict.fromkeys(value.consumers))
