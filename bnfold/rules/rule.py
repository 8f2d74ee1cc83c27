"""What a rule is: how an operator propagates the transforms of its tensors, and how it absorbs them.

The planner assigns a transform to a value and asks every operator that produces or consumes the value what follows. A
rule's ``propagate`` answers with what the operator's *other* values must carry, or with the reason why it can't;
its ``rewrite`` computes the operator's new constants once all transforms are known. Values of an operator without a
rule are immovable.

Adding a rule is one entry in the table of one file here, its semantics for verification, a test file, and one row in
``docs/operators.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine
from bnfold.numerics.linear import Scaled, Weight
from bnfold.numerics.rounding import is_float
from bnfold.rules.reasons import Refusal

Assignments = Sequence[tuple[Value, Affine]]
"""Transforms that further values must carry."""


class RuleContext(Protocol):
    """What a rule sees of the planner's work."""

    def proposed(self, value: Value | None) -> Affine | None:
        """The transform that this propagation has assigned to ``value``; None while it is free."""

    def current(self, value: Value) -> Affine:
        """The transform that ``value`` carries already from earlier folds, before this propagation."""


Alternatives = list[Assignments] | Refusal
"""Alternatives, best first: each is one consistent way to go on. An absorbing operator answers ``ABSORBED``."""

ABSORBED: list[Assignments] = [[]]


Transforms = Callable[[Value], Affine]
"""The transform that each value carries once a plan is made."""


@dataclass(frozen=True)
class Rewrite:
    """New constants (float64; large weights still to be computed) by node and input index, attributes by node and name.

    The node is mostly the operator itself; it may also be one that makes its weight: a DequantizeLinear, and a
    QuantizeLinear in front of it.
    """

    constants: dict[tuple[Node, int], NDArray[Any] | Scaled] = field(default_factory=dict)
    attributes: dict[tuple[Node, str], Any] = field(default_factory=dict)


INCONSISTENT_MODEL = (IndexError, TypeError, ValueError)
"""What a rule may raise for a model whose parts don't fit together."""


class NotRepresentable(Exception):
    """Raised by a rewrite whose new constants can't be stored; carries the refusal.

    ``exponents`` are the powers of two by which each output channel would fit, where that is known.
    """

    def __init__(self, refusal: Refusal, exponents: NDArray[np.float64] | None = None) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
        self.exponents = exponents


@dataclass(frozen=True)
class Rule:
    """What an operator does with transforms: ``upstream`` ones on its output, ``downstream`` ones on its input."""

    upstream: str
    downstream: str
    propagate: Callable[[Node, RuleContext], Alternatives]
    rewrite: Callable[[Node, Callable[[Value], Affine]], Rewrite] | None = None


def weight(node: Node, index: int, shape: tuple[int, int, int, int], *, inputs_first: bool = False) -> Weight:
    """A constant input as a weight of ``shape``, read when it is needed, also after edits. Raises NotEvaluable."""
    value = node.inputs[index]
    assert value is not None
    if value.part is not None:
        return Weight(value.part, shape, inputs_first)
    return Weight.of(constant(node, index).reshape(shape), inputs_first=inputs_first)


def not_constant(node: Node, *indices: int, code: str = "dynamic-weights") -> Refusal | None:
    """Return why the inputs at ``indices`` (absent ones aside) are not all constants of a supported type."""
    constants = node.graph.constants
    for value in (node.input(index) for index in indices):
        if value is None:
            continue
        if value.dtype is None:
            return Refusal("unknown-shape", f"the type of {value.name!r} is not known")
        if not constants.is_constant(value):
            if constants.depends_on_overridable(value):
                what = f"initializer {value.name!r} of {node.label}"
                return Refusal("overridable", f"{what} is also a graph input, which callers may override")
            by = "" if value.producer is None else f" by {value.producer.label}"
            return Refusal(code, f"{value.name!r} of {node.label} is computed at run time{by}")
        if not is_float(value.dtype):
            return Refusal("unsupported-dtype", f"{value.name!r} of {node.label} has type {value.dtype}")
    return None


def off_axis(transform: Affine, node: Node, axis: int, size: int) -> Refusal | None:
    """Return why ``transform`` is not one gain and shift per entry of ``axis``; None if it is."""
    if transform.vectors(axis, size) is not None:
        return None
    if transform.gain.ndim > axis + 1 and axis == 1 and transform.gain.shape[axis] in (1, size):
        return Refusal("per-activation", f"the transform varies over the positions of {node.label}")
    sizes = transform.gain.shape
    where = " and ".join(f"axis {index} ({length} entries)" for index, length in enumerate(sizes) if length > 1)
    there = f"{node.label} has {size} channels on axis {axis}"
    return Refusal("channel-axis", f"the transform varies along {where or 'no axis'}, {there}")


def singular(transform: Affine, node: Node) -> Refusal | None:
    """Return why a consumer can't undo ``transform``; None if it can."""
    if transform.invertible:
        return None
    return Refusal("consumers", f"a scale of zero can't be undone by {node.label}")


def proposed_around(node: Node, context: RuleContext) -> list[Affine]:
    """Return the transforms that are proposed for the data input and the output, those that are."""
    return [
        transform
        for transform in (context.proposed(node.inputs[0]), context.proposed(node.output))
        if transform is not None
    ]
