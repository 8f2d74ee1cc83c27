"""A flood: put maps on values and ask the operators around what follows, until all rests or one refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from bnfold.ir.constant_folding import NotEvaluable
from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.affine import Affine
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import StandIn
from bnfold.rules.reasons import Kept
from bnfold.rules.rounding_additions import refusal as rounds
from bnfold.rules.rounding_additions import rounding_nodes
from bnfold.rules.rule import CONTRADICTIONS, Demands, lookup, pinned

TOO_FAR = Kept("consumers", "the map would reach too many operators")

MOST_ALTERNATIVES = 64
"""Untried alternatives that one flood remembers."""


class Surroundings(Protocol):
    """The graph as it stands after the folds so far."""

    graph: Graph
    gone: set[Node]
    bridges: dict[Value, list[Value]]
    stand_ins: dict[Node, StandIn]

    def gauge(self, value: Value) -> Affine:
        """The map that ``value`` carries from earlier folds."""


@dataclass
class Flooded:
    """How far a flood has come: the maps it put on values, the operators that it met, those that absorbed.

    Entries are only ever added, so going back means forgetting the latest (:meth:`rewind`).
    """

    maps: dict[Value, Affine] = field(default_factory=dict)
    nodes: dict[Node, None] = field(default_factory=dict)
    absorbers: dict[Node, None] = field(default_factory=dict)

    def mark(self) -> tuple[int, int, int]:
        """A point to come back to."""
        return len(self.maps), len(self.nodes), len(self.absorbers)

    def rewind(self, mark: tuple[int, int, int]) -> None:
        """Forget what came after ``mark``."""
        while len(self.maps) > mark[0]:
            self.maps.popitem()
        for entries, length in zip((self.nodes, self.absorbers), mark[1:], strict=True):
            while len(entries) > length:
                entries.popitem()


class Flood:
    """One try at removing one operator. See :class:`bnfold.rules.rule.Flood` for what the rules may ask.

    ``seen`` takes every value that the outcome may depend on.
    """

    def __init__(
        self,
        planner: Surroundings,
        edge: AffineOp,
        budget: int,
        seen: set[Value],
        limit: int | None = None,
    ) -> None:
        self.planner, self.edge, self.budget, self.limit = planner, edge, budget, limit
        self.seen = seen
        self.state = Flooded()
        self.asked: dict[Node, int] = {}

    def given(self, value: Value | None) -> Affine | None:
        """The map that this flood has put on ``value``."""
        return None if value is None else self.state.maps.get(value)

    def gauge(self, value: Value) -> Affine:
        """The map that ``value`` carries from earlier folds."""
        return self.planner.gauge(value)

    def run(self, start: Demands) -> Flooded | Kept:
        """Spread ``start`` until it rests; where it is refused, go back to the last alternative."""
        first: Kept | None = None
        untried: list[tuple[tuple[int, int, int], list[Node], Demands]] = [(self.state.mark(), [], start)]
        while untried:
            mark, queue, demands = untried.pop()
            self.state.rewind(mark)
            self.asked.clear()
            refusal = self._accept(demands, queue)
            while refusal is None and queue:
                node = queue.pop()
                if not self._has_news(node):
                    continue
                self.seen.update(value for value in (*node.inputs, *node.outputs) if value is not None)
                ways = self._ask(node)
                self.budget -= 1
                if isinstance(ways, Kept):
                    refusal = ways
                elif self.budget < 0 or (self.limit is not None and len(self.state.absorbers) >= self.limit):
                    return TOO_FAR
                else:
                    if len(untried) < MOST_ALTERNATIVES:
                        untried.extend((self.state.mark(), list(queue), way) for way in reversed(ways[1:]))
                    refusal = self._accept(ways[0], queue)
            if refusal is None:
                return self.state
            first = first or refusal
        assert first is not None
        return first

    def _accept(self, demands: Demands, queue: list[Node]) -> Kept | None:
        """Put maps on values; refuse what is pinned, or contradicts what is there already."""
        demands = list(demands)
        while demands:
            value, map_ = demands.pop()
            known = self.state.maps.get(value)
            if known is not None:
                if not known.agrees(map_):
                    return Kept("consumers", f"{value.name!r} would have to carry two different maps")
                continue
            self.state.maps[value] = map_
            self.seen.add(value)
            if map_.is_identity:
                continue
            if not map_.finite:
                return Kept("overflow", f"the map of {value.name!r} is not finite")
            if self.planner.graph.constants.is_constant(value):
                return Kept("dynamic-weights", f"{value.name!r} is a constant that its reader can't change")
            if held := pin(value):
                return held
            if not map_.fits(self.gauge(value)):
                return Kept("unknown-shape", f"{value.name!r} has a map over another number of channels already")
            demands.extend((other, map_) for other in self.planner.bridges.get(value, ()))
            queue.extend(self._around(value))
        return None

    def _around(self, value: Value) -> Iterator[Node]:
        for node in dict.fromkeys((value.producer, *value.readers)):
            if node is not None and node not in self.edge.nodes and node not in self.planner.gone:
                yield node

    def _has_news(self, node: Node) -> bool:
        """True if a value around ``node`` got its map since it was asked: maps are added, never changed."""
        count = sum(value in self.state.maps for value in (*node.inputs, *node.outputs))
        news = self.asked.get(node) != count
        self.asked[node] = count
        return news

    def _ask(self, node: Node) -> list[Demands] | Kept:
        """What ``node`` makes of the maps around it."""
        if (stand_in := self.planner.stand_ins.get(node)) is not None:
            return stand_in.spread(self.given(stand_in.source), self.given(stand_in.target))
        rule = lookup(node.op)
        if rule is None or not node.live_outputs:
            return self._blame(node, pinned(node))
        if node in rounding_nodes(node.graph):
            return self._blame(node, rounds(node))
        try:
            ways = rule.spread(node, self)
        except NotEvaluable as error:
            return Kept("dynamic-weights", str(error))
        except CONTRADICTIONS:
            return Kept("unknown-shape", f"{node.op} {node.name!r} contradicts the shapes around it")
        except ZeroDivisionError:
            return Kept("consumers", f"a scale of zero can't be undone by {node.op} {node.name!r}")
        if isinstance(ways, Kept):
            return self._blame(node, ways)
        self.state.nodes[node] = None
        if rule.rewrite and any(map(self.planner.graph.constants.is_constant, node.inputs)):
            self.state.absorbers[node] = None
        return ways

    def _blame(self, node: Node, refusal: Kept) -> Kept:
        """A node that merely reads the same value as the operator is another consumer, whatever it is."""
        if self.edge.source in node.inputs and self.edge.source in self.state.maps:
            return Kept("consumers", f"{self.edge.source.name!r} is read by {node.op} {node.name!r} too")
        return refusal


def pin(value: Value) -> Kept | None:
    """Why ``value`` must stay what it is, whatever makes or reads it."""
    nested = bool(value.graph.name)
    if value.captured:
        return Kept("control-flow", f"{value.name!r} is read by a nested graph")
    if value.producer is None and not value.is_input:
        return Kept("dynamic-weights", f"{value.name!r} is stored data that can't be changed here")
    if value.is_output:
        return Kept("control-flow" if nested else "graph-output", f"{value.name!r} is an output of its graph")
    if value.is_input:
        return Kept("control-flow" if nested else "graph-input", f"{value.name!r} is an input of its graph")
    return None
