"""Which values must share one scale, and which can't have any: known at once for all propagations to come.

Sums give all their operands one scale, whichever of them takes the offset. A propagation finds out step by step, and
tries the offset everywhere before it gives up; in a wide graph that is long. Here such values are one group, merged as
folds join them (a fold only ever ties more), so that a propagation that can't succeed need not be begun.
"""

from __future__ import annotations

from bnfold.ir.graph import Graph, Node, Value
from bnfold.ir.op_views import keeps_type
from bnfold.numerics.affine import Affine
from bnfold.planner.propagation import immovable
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Assignments

SUMS = frozenset({"Add", "Sub", "Sum", "Neg", "Identity"})
"""Operators whose operands and result have one gain, or refuse."""


class ScaleGroups:
    """The classes of one graph, as a forest; ``_immovable`` says of a group that it can have no scale, and why."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._parents: dict[Value, Value] = {}
        self._sizes: dict[Value, int] = {}
        self._immovable: dict[Value, Refusal] = {}
        self._behind: dict[Value, list[Value]] = {}
        for node in graph.nodes:
            self._read(node)

    def _read(self, node: Node) -> None:
        constant = node.graph.constants.is_constant
        ties = node.op in SUMS or (node.op == "Cast" and keeps_type(node))
        if not (ties or node.op == "Concat") or not node.outputs or node.outputs[0] is None:
            return
        values = [value for value in node.inputs if value is not None and not constant(value)]
        for value in values if ties else ():
            self.join(value, node.output)
        for value in values if node.op == "Concat" else ():
            if value.shape is not None and 0 not in value.shape:  # a gain on a part is one on the whole
                whole = self._root(node.output)
                self._behind.setdefault(whole, []).append(value)
                if whole in self._immovable:
                    self._fix(value, self._immovable[whole])

    def join(self, first: Value, second: Value) -> None:
        """From now on both have one gain."""
        large, small = self._root(first), self._root(second)
        if large is small:
            return
        if self._sizes[large] < self._sizes[small]:
            large, small = small, large
        held = self._immovable.get(large), self._immovable.pop(small, None)
        self._parents[small] = large
        self._sizes[large] += self._sizes.pop(small)
        ahead, behind = self._behind.get(large, []), self._behind.pop(small, [])
        news = ahead if held[0] is None else behind if held[1] is None else []
        refusal_of_both = held[0] or held[1]
        news = list(news)
        if behind:
            self._behind[large] = [*ahead, *behind] if len(behind) < len(ahead) else [*behind, *ahead]
        if refusal_of_both is not None:
            self._immovable[large] = refusal_of_both
            for value in news:
                self._fix(value, refusal_of_both)

    def _fix(self, value: Value, why: Refusal) -> None:
        pending = [value]
        while pending:
            root = self._root(pending.pop())
            if root not in self._immovable:
                self._immovable[root] = why
                pending += self._behind.get(root, ())

    def _root(self, value: Value) -> Value:
        root = value
        while (parent := self._parents.get(root)) is not None:
            root = parent
        if root is value and value not in self._sizes:
            self._sizes[value] = 1
            if (why := immovable(value)) is not None:
                self._immovable[value] = why
        while value is not root:
            self._parents[value], value = root, self._parents[value]
        return root

    def many(self, assignments: Assignments, few: int) -> bool:
        """Return True if one of the values shares its gain with more than ``few``, or has as many consumers."""
        return any(self._sizes[self._root(value)] > few or len(value.consumers) > few for value, _ in assignments)

    def refusal(self, assignments: Assignments) -> Refusal | None:
        """Return why no propagation that begins with these transforms can succeed; None where one may."""
        gains: dict[Value, Affine] = {}
        for value, transform in assignments:
            root, gain = self._root(value), transform.gain_only()
            if not gain.is_identity and root in self._immovable:
                return self._immovable[root]
            if not gains.setdefault(root, gain).agrees(gain):
                return Refusal("consumers", f"{value.name!r} would have to carry two different transforms")
        return None
