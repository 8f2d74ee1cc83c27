"""The rules of folding, asked outside of a fold: what an operator makes of transforms on some of its values."""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL
from bnfold.rules.table import lookup


class _Given:
    """The :class:`bnfold.rules.rule.RuleContext` where a few values carry a transform."""

    def __init__(self, given: Mapping[Value, Affine]) -> None:
        self._given = given

    def proposed(self, value: Value | None) -> Affine | None:
        """The transform of a value that carries one."""
        return None if value is None else self._given.get(value)

    def current(self, _: Value) -> Affine:
        """The identity: a model is read as it stands, without folds."""
        return IDENTITY


def carried(node: Node, given: Mapping[Value, Affine]) -> dict[Value, Affine] | None:
    """Return what the other values of an operator carry by its rule, best alternative; None where it refuses."""
    rule = lookup(node.op)
    if rule is None:
        return None
    try:
        alternatives = rule.propagate(node, _Given(given))
    except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
        return None
    return None if isinstance(alternatives, Refusal) else dict(alternatives[0])


def forward_transform(node: Node, transform: Affine) -> dict[Value, Affine] | None:
    """Return the transforms of the outputs by the operator's rule, if the first input carries ``transform``."""
    source = node.input(0)
    assignments = None if source is None else carried(node, {source: transform})
    return assignments if assignments and all(value in node.outputs for value in assignments) else None
