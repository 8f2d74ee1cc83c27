"""Propagation: assign transforms to values and ask the operators around what follows, to a fixpoint or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from bnfold.ir.evaluation import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.affine import Affine
from bnfold.planner.candidates import AffineOp
from bnfold.planner.conditioning import Conditioning
from bnfold.planner.plan import ResidualOp
from bnfold.rules.reasons import Refusal
from bnfold.rules.rounding_additions import refusal as rounds
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import INCONSISTENT_MODEL, Assignments
from bnfold.rules.table import lookup
from bnfold.rules.without_rule import no_rule

TOO_FAR = Refusal("consumers", "the transform would reach too many operators")

MOST_SHOWN = 4
"""Nodes of a path that a message names."""

MOST_ALTERNATIVES = 64
"""Untried alternatives that one propagation remembers."""


NEARBY = 32
"""Values before an input among which it is looked for a transformed one."""

JOINTS = frozenset({"Concat", "Mul", "Div"})
"""Operators that go on from the inputs that are known, as if the others were as they are."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "Linear", "LSTM", "GRU", "RNN", "Recurrent"})
"""Operators that absorb transforms, whatever they read."""

PINNING = frozenset({"Relu", "LeakyRelu", "PRelu", "Clip"})
"""Operators with a rule that refuse most transforms by what they are asked alone."""


class PlannerState(Protocol):
    """The graph as it stands after the folds so far."""

    graph: Graph
    removed: set[Node]
    aliases: dict[Value, list[Value]]
    residuals: dict[Node, ResidualOp]
    conditioning: Conditioning

    def current(self, value: Value) -> Affine:
        """The transform that ``value`` carries from earlier folds."""


@dataclass
class PropagationState:
    """How far a propagation has come: the transforms of values, the operators that it met, those that absorbed.

    Entries are only ever added, so going back means forgetting the latest (:meth:`rewind`).
    """

    assigned: dict[Value, Affine] = field(default_factory=dict)
    nodes: dict[Node, None] = field(default_factory=dict)
    absorbers: dict[Node, None] = field(default_factory=dict)

    def position(self) -> tuple[int, int, int]:
        """A point to come back to."""
        return len(self.assigned), len(self.nodes), len(self.absorbers)

    def rewind(self, position: tuple[int, int, int]) -> None:
        """Forget what came after ``position``."""
        while len(self.assigned) > position[0]:
            self.assigned.popitem()
        for entries, length in zip((self.nodes, self.absorbers), position[1:], strict=True):
            while len(entries) > length:
                entries.popitem()


class Propagation:
    """One try at removing one operator. See :class:`bnfold.rules.rule.RuleContext` for what the rules may ask.

    ``seen`` takes every value that the outcome may depend on.
    """

    def __init__(
        self,
        planner: PlannerState,
        candidate: AffineOp,
        budget: int,
        seen: set[Value],
        limit: int | None = None,
    ) -> None:
        self.planner, self.candidate, self.budget, self.limit = planner, candidate, budget, limit
        self.seen = seen
        self.state = PropagationState()
        self.asked: dict[Node, int] = {}
        self.origins: dict[Value | None, Node | None] = {}  # which node moved a value, up to the first refusal

    def proposed(self, value: Value | None) -> Affine | None:
        """The transform that this propagation has assigned to ``value``."""
        return None if value is None else self.state.assigned.get(value)

    def current(self, value: Value) -> Affine:
        """The transform that ``value`` carries from earlier folds."""
        return self.planner.current(value)

    def run(self, start: Assignments) -> PropagationState | Refusal:
        """Propagate ``start`` to a fixpoint; where it is refused, go back to the last alternative."""
        first: Refusal | None = None
        untried: list[tuple[tuple[int, int, int], list[Node], Assignments]] = [(self.state.position(), [], start)]
        while untried:
            position, queue, assignments = untried.pop()
            self.state.rewind(position)
            self.asked.clear()
            node: Node | None = None
            refused_at = False
            refusal = self._accept(assignments, queue, None, trace=first is None)
            while refusal is None and queue:
                node = queue.pop(self._next(queue))
                if not self._has_news(node):
                    continue
                self.seen.update(value for value in (*node.inputs, *node.outputs) if value is not None)
                alternatives = self._ask(node)
                self.budget -= 1
                if isinstance(alternatives, Refusal):
                    refusal, refused_at = alternatives, True
                elif self.budget < 0 or (self.limit is not None and len(self.state.absorbers) >= self.limit):
                    return TOO_FAR
                else:
                    if len(untried) < MOST_ALTERNATIVES:
                        untried.extend(
                            (self.state.position(), list(queue), alternative)
                            for alternative in reversed(alternatives[1:])
                        )
                    refusal, refused_at = self._accept(alternatives[0], queue, node, trace=first is None), False
            if refusal is None:
                return self.state
            if first is None:
                where = None if node is None else partial(self._path, node, refused_at=refused_at)
                first = replace(refusal, path=where)
                if untried and self._scales_fail(start):
                    break
        assert first is not None
        return first

    def _scales_fail(self, start: Assignments) -> bool:
        """Return True if the scales alone are refused: alternatives are about where an offset goes, and can't help."""
        if not any(transform.has_shift for _, transform in start):
            return False
        scales = [(value, transform.gain_only()) for value, transform in start]
        outcome = Propagation(self.planner, self.candidate, self.budget, self.seen).run(scales)
        return isinstance(outcome, Refusal) and outcome is not TOO_FAR and outcome.reason != "conditioning"

    def _path(self, node: Node, *, refused_at: bool) -> str:
        """Return, for a message, the nodes that the transform went through from the candidate to ``node``.

        ``refused_at``: it is ``node`` that refuses, which the refusal names; else a value that ``node`` would move.
        """
        order = {value: index for index, value in enumerate(self.origins)}
        path: list[Node] = [] if refused_at else [node]
        current: Node | None = node
        while current is not None:
            moved = [value for value in (*current.inputs, *current.outputs) if value in order]
            current = self.origins[min(moved, key=order.__getitem__)] if moved else None
            if current is not None:
                path.append(current)
        return f" (through {_shown(path[::-1])})" if path else ""

    def _accept(self, assignments: Assignments, queue: list[Node], by: Node | None, *, trace: bool) -> Refusal | None:
        """Assign transforms to values; refuse for immovable ones, and for what contradicts an earlier assignment.

        ``by`` is the node that asks for them, which is recorded with ``trace``.
        """
        assignments, old = list(assignments), len(queue)
        while assignments:
            value, transform = assignments.pop()
            known = self.state.assigned.get(value)
            if known is not None:
                if not known.agrees(transform):
                    return Refusal("consumers", f"{value.name!r} would have to carry two different transforms")
                continue
            self.state.assigned[value] = transform
            if trace:
                self.origins[value] = by
            self.seen.add(value)
            if transform.is_identity:
                continue
            if not transform.finite:
                return Refusal("overflow", f"the transform of {value.name!r} is not finite")
            if self.planner.graph.constants.is_constant(value):
                return Refusal("dynamic-weights", f"{value.name!r} is a constant that its consumer can't change")
            if held := immovable(value):
                return held
            if not transform.fits(self.current(value)):
                return Refusal("unknown-shape", f"{value.name!r} has a transform of another number of channels")
            if costly := self._costs(value, transform):
                return costly
            assignments.extend((other, transform) for other in self.planner.aliases.get(value, ()))
            queue.extend(self._around(value))
        queue[old:] = sorted(queue[old:], key=_pins)
        return None

    def _costs(self, value: Value, transform: Affine) -> Refusal | None:
        """Return why a transform of ``value``, after those of earlier folds, would cost accuracy."""
        try:
            total = transform.after(self.current(value))
        except ValueError:
            return Refusal("channel-axis", f"the transform of {value.name!r} varies along several axes")
        return self.planner.conditioning.refusal(value, total)

    def _around(self, value: Value) -> Iterator[Node]:
        for node in dict.fromkeys((value.producer, *value.consumers)):
            if node is not None and node not in self.candidate.nodes and node not in self.planner.removed:
                yield node

    def _next(self, queue: list[Node]) -> int:
        """Return the place of the node to ask: the last, but one of several inputs that will be known later last."""
        for place in range(len(queue) - 1, -1, -1):
            if queue[place].op not in JOINTS or not self._waits(queue[place]):
                return place
        return len(queue) - 1

    def _waits(self, node: Node) -> bool:
        """Return True if a node, asked now, would take an input for untransformed that depends on transformed values.

        Mean and deviation of one value are such parts of a Concat. Weights on the way absorb what comes there.
        """
        if not node.live_outputs or node.output in self.state.assigned:
            return False
        pending = [value for value in node.inputs if value is not None and value not in self.state.assigned]
        for _ in range(NEARBY):
            if not pending:
                return False
            producer = pending.pop().producer
            inputs = [] if producer is None or producer.op in WEIGHTED else producer.inputs
            pending += [value for value in inputs if value is not None]
            if any(value in self.state.assigned for value in inputs):
                return True
        return False

    def _has_news(self, node: Node) -> bool:
        """True if a value around ``node`` got its transform since it was asked: transforms are added, never changed."""
        count = sum(value in self.state.assigned for value in (*node.inputs, *node.outputs))
        news = self.asked.get(node) != count
        self.asked[node] = count
        return news

    def _ask(self, node: Node) -> list[Assignments] | Refusal:
        """Return what ``node`` makes of the transforms around it."""
        if (residual := self.planner.residuals.get(node)) is not None:
            return residual.propagate(self.proposed(residual.source), self.proposed(residual.target))
        rule = lookup(node.op)
        if rule is None or not node.live_outputs:
            return self._reattribute(node, no_rule(node))
        if node in rounding_nodes(node.graph):
            return self._reattribute(node, rounds(node))
        try:
            alternatives = rule.propagate(node, self)
        except NotEvaluable as error:
            return Refusal("dynamic-weights", str(error))
        except INCONSISTENT_MODEL:
            return Refusal("unknown-shape", f"{node.label} contradicts the shapes around it")
        except ZeroDivisionError:
            return Refusal("consumers", f"a scale of zero can't be undone by {node.label}")
        if isinstance(alternatives, Refusal):
            return self._reattribute(node, alternatives)
        self.state.nodes[node] = None
        if rule.rewrite and any(map(self.planner.graph.constants.is_constant, node.inputs)):
            self.state.absorbers[node] = None
        return alternatives

    def _reattribute(self, node: Node, refusal: Refusal) -> Refusal:
        """A node that merely reads the same value as the operator is another consumer, whatever it is."""
        if self.candidate.source in node.inputs and self.candidate.source in self.state.assigned:
            return Refusal("consumers", f"tensor {self.candidate.source.name!r} is also used by {node.label}")
        return refusal


def _pins(node: Node) -> bool:
    """Return True for operators that are asked first: they refuse most transforms, whatever lies behind them."""
    return node.op in PINNING or lookup(node.op) is None


def _shown(path: list[Node]) -> str:
    """Return the nodes of a path in a message; of a long one the first two and the last."""
    labels = [node.label for node in path]
    if len(labels) > MOST_SHOWN:
        labels = [*labels[:2], f"{len(labels) - 3} more", labels[-1]]
    return " → ".join(labels)


def immovable(value: Value) -> Refusal | None:
    """Return why ``value`` must stay what it is, whatever makes or reads it."""
    nested = bool(value.graph.name)
    if value.captured:
        inside = next((node for node in value.consumers if node.graph is not value.graph), None)
        by = "" if inside is None else f", by {inside.label}"
        return Refusal("control-flow", f"{value.name!r} is read in a subgraph{by}")
    if value.producer is None and not value.is_input:
        return Refusal("dynamic-weights", f"{value.name!r} is stored data that can't be changed here")
    if value.is_output:
        where = "a subgraph" if nested else "the model"
        return Refusal("control-flow" if nested else "graph-output", f"{value.name!r} is an output of {where}")
    if value.is_input:
        where = "a subgraph" if nested else "the model"
        return Refusal("control-flow" if nested else "graph-input", f"{value.name!r} is an input of {where}")
    return None
