"""The planner: which maps to put on which values, so that affine operators become the identity.

The new graph may carry ``A(v) = gain * v + shift`` (the value's *gauge*) in place of any value ``v`` as long
as whoever makes it and whoever reads it agree. An affine operator ``y = M x`` disappears where
``A(x) = A(y) M``. The planner removes them one after the other, last ones first. For each it tries to
push the map to the producer's side, to the readers' side, or gain and shift to different sides; each try
is a *flood*: the operators around are asked by their rules what follows, until all is absorbed or one
refuses. A flood changes nothing until it has succeeded, and the cheapest success is taken. Rules see
the graph as it stands after the folds so far (:class:`bnfold.ops.Flood`), so maps add up and a later fold
may pass through an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from bnfold.affine import IDENTITY, Affine
from bnfold.find import AffineOp, affine_ops
from bnfold.graph import Graph, Node, Value
from bnfold.graph.constants import NotEvaluable
from bnfold.ops import Demands, lookup, pinned
from bnfold.reasons import Kept

BUDGETS = (32, 512, 20_000)
"""Operators that one flood may ask before it gives up: near solutions first, then farther ones."""

TOO_FAR = Kept("consumers", "the map would reach too many operators")

MOST_ALTERNATIVES = 64
"""Untried alternatives that one flood remembers."""

WORST_CONDITION = 64.0
"""How many times larger than the activations a shift around other readers may be."""


@dataclass(frozen=True, eq=False)
class StandIn:
    """One node of two operands, a value and a constant, in the place of several.

    ``Add``: the factor that took the gain has no bias, so the shift stays behind. ``Max``: ``relu(a x + b)`` is
    ``a max(x, -b / a) + b`` for positive ``a``; what surrounds the maximum goes into the linear operator behind.
    ``constant`` belongs to the original value of ``source``.
    """

    op: str
    nodes: tuple[Node, ...]
    source: Value
    target: Value
    constant: Affine

    def spread(self, before: Affine | None, after: Affine | None) -> list[Demands] | Kept:
        """An Add ties the gains and takes any shift; a Max passes any map with positive gains."""
        known = before if before is not None else after
        assert known is not None
        if self.op == "Max" and not known.positive:
            return Kept("nonlinear", f"a gain that is not positive does not pass the Max at {self.target.name!r}")
        passed = known.gain_only() if self.op == "Add" else known
        if before is None or after is None:
            return [[(self.target if after is None else self.source, passed)]]
        agreed = passed.agrees(after.gain_only() if self.op == "Add" else after)
        return [[]] if agreed else Kept("consumers", f"{self.target.name!r} would need two different maps")

    def data(self, gauge: Callable[[Value], Affine]) -> Affine:
        """The constant that the settled maps leave, as the shift of a map."""
        before, after = gauge(self.source), gauge(self.target)
        if self.op == "Add":
            moved = after.after(self.constant).shift_only()
            return Affine.of(1.0, -before.shift).after(moved)
        return before.after(Affine.of(0.0, self.constant.shift)).shift_only()


Way = tuple[str, Demands]
"""A direction, and the maps that it puts on the two ends of an affine operator."""


@dataclass(frozen=True)
class Fold:
    """An affine operator that goes: which way its map went, through which operators, into which nodes.

    ``stand_in`` is what stays in its place, if anything does.
    """

    op: AffineOp
    direction: str
    into: tuple[Node, ...]
    via: tuple[str, ...]
    stand_in: StandIn | None = None


@dataclass
class Plan:
    """What happens to each affine operator of one graph, and the gauge of every value that gets one."""

    graph: Graph
    outcomes: list[tuple[AffineOp, Fold | Kept]]
    gauges: dict[Value, Affine]

    @property
    def folds(self) -> list[Fold]:
        """The folds alone."""
        return [outcome for _, outcome in self.outcomes if isinstance(outcome, Fold)]

    def gauge(self, value: Value) -> Affine:
        """What the new graph carries in place of ``value``."""
        return self.gauges.get(value, IDENTITY)

    def touched(self) -> list[Node]:
        """The nodes around gauged values that stay, in order."""
        gone = {node for fold in self.folds for node in fold.op.nodes}
        gone.update(node for fold in self.folds if fold.stand_in for node in fold.stand_in.nodes)
        around = {node for value in self.gauges for node in (value.producer, *value.readers) if node}
        return [node for node in self.graph.nodes if node in around and node not in gone]


def plan(
    graph: Graph,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    refused: Mapping[str, Kept] | None = None,
    scales: bool = True,
    threshold: bool = False,
) -> Plan:
    """Decide for every affine operator of ``graph``.

    ``only`` and ``skip`` name nodes or their outputs; ``refused`` holds operators, by the name of their
    output, that an earlier attempt found unfit (a weight that overflows). Without ``scales``, chains that are no
    BatchNorm stay. ``threshold`` lets a BatchNorm before a Relu and an unpadded linear operator become one Max.
    """
    return _Planner(graph, threshold).solve(frozenset(only), frozenset(skip), refused or {}, scales)


@dataclass
class _Flooded:
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


class _Planner:
    def __init__(self, graph: Graph, threshold: bool) -> None:
        self.graph = graph
        self.threshold = threshold
        self.gauges: dict[Value, Affine] = {}
        self.gone: set[Node] = set()
        self.bridges: dict[Value, list[Value]] = {}
        self.stand_ins: dict[Node, StandIn] = {}

    def gauge(self, value: Value) -> Affine:
        return self.gauges.get(value, IDENTITY)

    def solve(self, only: frozenset[str], skip: frozenset[str], refused: Mapping[str, Kept], scales: bool) -> Plan:
        found = affine_ops(self.graph)
        outcomes: dict[AffineOp, Fold | Kept] = {}
        open_ = []
        for op in found:
            if (only and not op.answers_to(only)) or op.answers_to(skip) or (op.form == "scale" and not scales):
                outcomes[op] = Kept("skipped", f"{op.name!r} was left out on request")
            elif refusal := op.refusal or refused.get(op.target.name):
                outcomes[op] = refusal
            else:
                open_.append(op)
        progress = True
        while progress and open_:
            progress = False
            for op in reversed(open_):
                outcomes[op] = self.remove(op)
                progress |= isinstance(outcomes[op], Fold)
            open_ = [op for op in open_ if isinstance(outcomes[op], Kept)]
        gauges = {value: map_ for value, map_ in self.gauges.items() if not map_.is_identity}
        return Plan(self.graph, [(op, outcomes[op]) for op in found], gauges)

    def remove(self, op: AffineOp) -> Fold | Kept:
        """Take ``op`` out in the cheapest way; if there is none, say why.

        Ways that stay near are looked for first: what reaches far is tried only when they have failed.
        """
        assert op.map is not None
        if not self.gauge(op.source).invertible:
            return Kept("consumers", f"the input of {op.name!r} has a scale of zero already")
        map_ = self.gauge(op.target).after(op.map).after(self.gauge(op.source).inverse())
        if not map_.finite:
            return Kept("overflow", f"the map of {op.name!r} is not finite")
        refusals: dict[str, Kept] = {}
        ways = list(_ways(op, map_))
        for budget in BUDGETS:
            best, ways = self._cheapest(op, ways, budget, refusals)
            if best is not None:
                return self._commit(op, *best)
        for direction, _ in ways:
            refusals.setdefault(direction, TOO_FAR)
        if refusals["upstream"].reason == "no-bias":
            return self._leave_add(op, map_)
        readers = self._readers(op.target)
        if readers and all(reader.op == "MatMul" for reader in readers):
            before_product = self._leave_add(op, map_, downstream=True)
            if isinstance(before_product, Fold):
                return before_product
        if self.threshold and (fold := self._leave_max(op, map_)) is not None:
            return fold
        return _most_telling(refusals)

    def _leave_add(self, op: AffineOp, map_: Affine, *, downstream: bool = False) -> Fold | Kept:
        """Only the gain goes, to the producer or into the products behind; the shift stays as one Add."""
        assert op.map is not None
        gain = map_.gain_only()
        if not downstream:
            start = [(op.source, gain), (op.target, IDENTITY)]
        elif gain.invertible:
            start = [(op.source, IDENTITY), (op.target, gain.inverse())]
        else:
            return TOO_FAR
        flood = _Flood(self, op, BUDGETS[-1]).run(start)
        if isinstance(flood, Kept):
            return flood
        stand_in = StandIn("Add", tuple(op.nodes), op.source, op.target, op.map)
        return self._commit(op, flood, "downstream" if downstream else "upstream", stand_in)

    def _leave_max(self, op: AffineOp, map_: Affine) -> Fold | None:
        """``relu(a x + b) = a max(x, -b / a) + b``: the gain and shift go on, the maximum stays. None if they can't."""
        readers = self._readers(op.target)
        relu = readers[0] if len(readers) == 1 else None
        if relu is None or relu.op != "Relu" or relu.opset < 8 or not map_.positive or not map_.invertible:
            return None
        edge = AffineOp([*op.nodes, relu], op.source, relu.output, map_, op.form)
        flood = _Flood(self, edge, BUDGETS[-1]).run([(relu.output, map_.inverse()), (op.source, IDENTITY)])
        if isinstance(flood, Kept):
            return None
        level = self.gauge(op.source).inverse().after(Affine.of(0.0, -map_.shift / map_.gain))
        return self._commit(op, flood, "downstream", StandIn("Max", tuple(edge.nodes), op.source, relu.output, level))

    def _cheapest(
        self, op: AffineOp, ways: list[Way], budget: int, refusals: dict[str, Kept]
    ) -> tuple[tuple[_Flooded, str] | None, list[Way]]:
        """The success that changes the fewest weights, and the ways that ran out of budget."""
        best: tuple[_Flooded, str] | None = None
        farther: list[Way] = []
        for direction, start in ways:
            flood = _Flood(self, op, budget, len(best[0].absorbers) if best else None).run(start)
            if isinstance(flood, _Flooded):
                flood = self._check(op, flood)
            if isinstance(flood, _Flooded):
                best = flood, direction
                if len(flood.absorbers) <= 1:
                    break
            elif flood is TOO_FAR:
                farther.append((direction, start))
            else:
                refusals.setdefault(direction, flood)
        return best, farther

    def _readers(self, value: Value) -> list[Node]:
        """Who reads ``value``, beyond operators that are gone already; empty where a caller may read it too."""
        readers: list[Node] = []
        pending, seen = [value], set[Value]()
        while pending:
            current = pending.pop()
            seen.add(current)
            if current.is_output or current.captured:
                return []
            readers += [node for node in current.readers if node not in self.gone]
            pending += [v for v in self.bridges.get(current, ()) if v not in seen and v.producer in self.gone]
        return readers

    def _check(self, op: AffineOp, flood: _Flooded) -> _Flooded | Kept:
        """Numbers of a sensible size must be left on values that others read: they undo the map."""
        before = flood.maps[op.source]
        shared = any(map_.has_shift and len(value.readers) > 1 for value, map_ in flood.maps.items())
        if not shared or not before.invertible:
            return flood
        total = before.after(self.gauge(op.source))
        offset, size = np.abs(total.shift / total.gain), np.ones(())
        if op.statistics is not None and (vectors := total.vectors(1, op.statistics.mean.size)) is not None:
            offset = np.abs(vectors[1] / vectors[0])
            size = np.abs(op.statistics.mean) + np.sqrt(op.statistics.var + op.statistics.epsilon)
        condition = float(np.max(offset / size, initial=0.0))
        if condition > WORST_CONDITION:
            return Kept("conditioning", f"the shift of {op.name!r} is {condition:.3g} times its activations")
        return flood

    def _commit(self, op: AffineOp, flood: _Flooded, direction: str, stand_in: StandIn | None = None) -> Fold:
        for value, delta in flood.maps.items():
            self.gauges[value] = delta.after(self.gauge(value))
        if stand_in is not None:
            self.stand_ins.update(dict.fromkeys(stand_in.nodes, stand_in))
        else:
            self.gone.update(op.nodes)
            self.bridges.setdefault(op.source, []).append(op.target)
            self.bridges.setdefault(op.target, []).append(op.source)
        via = tuple(node.op for node in flood.nodes if node not in flood.absorbers)
        direction = "downstream" if direction == "downstream" else "upstream"
        return Fold(op, direction, tuple(flood.absorbers), via, stand_in)


class _Flood:
    """One try at removing one operator. See :class:`bnfold.ops.Flood` for what the rules may ask."""

    def __init__(self, planner: _Planner, edge: AffineOp, budget: int, limit: int | None = None) -> None:
        self.planner, self.edge, self.budget, self.limit = planner, edge, budget, limit
        self.state = _Flooded()

    def given(self, value: Value | None) -> Affine | None:
        """The map that this flood has put on ``value``."""
        return None if value is None else self.state.maps.get(value)

    def gauge(self, value: Value) -> Affine:
        """The map that ``value`` carries from earlier folds."""
        return self.planner.gauge(value)

    def run(self, start: Demands) -> _Flooded | Kept:
        """Spread ``start`` until it rests; where it is refused, go back to the last alternative."""
        first: Kept | None = None
        untried: list[tuple[tuple[int, int, int], list[Node], Demands]] = [(self.state.mark(), [], start)]
        while untried:
            mark, queue, demands = untried.pop()
            self.state.rewind(mark)
            refusal = self._accept(demands, queue)
            while refusal is None and queue:
                node = queue.pop()
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
            if map_.is_identity:
                continue
            if not map_.finite:
                return Kept("overflow", f"the map of {value.name!r} is not finite")
            if self.planner.graph.constants.is_constant(value):
                return Kept("dynamic-weights", f"{value.name!r} is a constant that its reader can't change")
            if pin := _pin(value):
                return pin
            demands.extend((other, map_) for other in self.planner.bridges.get(value, ()))
            queue.extend(self._around(value))
        return None

    def _around(self, value: Value) -> Iterator[Node]:
        for node in dict.fromkeys((value.producer, *value.readers)):
            if node is not None and node not in self.edge.nodes and node not in self.planner.gone:
                yield node

    def _ask(self, node: Node) -> list[Demands] | Kept:
        """What ``node`` makes of the maps around it."""
        if (stand_in := self.planner.stand_ins.get(node)) is not None:
            return stand_in.spread(self.given(stand_in.source), self.given(stand_in.target))
        rule = lookup(node.op)
        if rule is None or not node.live_outputs or (rule.makes_first and node.outputs[0] is None):
            return self._blame(node, pinned(node))
        try:
            ways = rule.spread(node, self)
        except NotEvaluable as error:
            return Kept("dynamic-weights", str(error))
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


def _ways(op: AffineOp, map_: Affine) -> Iterator[Way]:
    """The ways to satisfy ``A(x) = A(y) M``: all upstream; gain down and shift up; all downstream; the rest.

    Each says what both ends carry, so that a map that reaches the other end by another way is a contradiction.
    """
    gain, shift = map_.gain_only(), map_.shift_only()
    both = map_.has_shift and not gain.is_identity
    x, y = op.source, op.target
    yield "upstream", [(x, map_), (y, IDENTITY)]
    if not map_.invertible:
        return
    if both:
        yield "both", [(y, gain.inverse()), (x, gain.inverse().after(map_).shift_only())]
    yield "downstream", [(y, map_.inverse()), (x, IDENTITY)]
    if both:
        yield "both", [(x, gain), (y, shift.inverse())]


def _pin(value: Value) -> Kept | None:
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


_INPUT_SIDE = ("graph-input", "nonlinear", "unknown-op", "control-flow", "quantized-activation")
_ACTIONABLE = ("padding", "consumers", "channel-axis", "dynamic-weights", "overridable", "unknown-shape")


def _most_telling(refusals: dict[str, Kept]) -> Kept:
    """One reason out of those of both directions: what stands in the way and can be changed."""
    up, down = refusals["upstream"], refusals.get("downstream")
    if down is None or down.detail == up.detail:
        return up
    code = down.reason if up.reason in _INPUT_SIDE and down.reason in _ACTIONABLE else up.reason
    return Kept(code, f"upstream: {up.detail}; downstream: {down.detail}")
