"""The rules of folding, asked outside of a fold: what an operator makes of a transform on its first input."""

from __future__ import annotations

from bnfold.ir.constant_folding import NotEvaluable
from bnfold.ir.graph import Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import INCONSISTENT_MODEL
from bnfold.rules.table import lookup


class _SingleInput:
    """The :class:`bnfold.rules.rule.RuleContext` where only the first input carries a transform."""

    def __init__(self, value: Value, transform: Affine) -> None:
        self._value, self._map = value, transform

    def proposed(self, value: Value | None) -> Affine | None:
        """The transform of the one value that carries one."""
        return self._map if value is self._value else None

    def current(self, _: Value) -> Affine:
        """The identity: a model is read as it stands, without folds."""
        return IDENTITY


def forward_transform(node: Node, transform: Affine) -> dict[Value, Affine] | None:
    """The transforms of the outputs by the operator's rule, if the first input carries ``transform``."""
    rule, source = lookup(node.op), node.input(0)
    if rule is None or source is None:
        return None
    try:
        alternatives = rule.propagate(node, _SingleInput(source, transform))
    except (NotEvaluable, ZeroDivisionError, *INCONSISTENT_MODEL):
        return None
    if isinstance(alternatives, Refusal):
        return None
    assignments = dict(alternatives[0])
    return assignments if all(value in node.outputs for value in assignments) and assignments else None
