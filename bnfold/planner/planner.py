"""The planner: which maps to put on which values, so that affine operators become the identity.

The new graph may carry ``A(v) = gain * v + shift`` (the value's *gauge*) in place of any value ``v`` as long as
whoever makes it and whoever reads it agree. An affine operator ``y = M x`` disappears where ``A(x) = A(y) M``. The
planner removes them one after the other, last ones first. For each it tries to push the map to the producer's side,
to the readers' side, or gain and shift to different sides; each try is a *flood*: the operators around are asked by
their rules what follows, until all is absorbed or one refuses. A flood changes nothing until it has succeeded, and
the cheapest success is taken. Rules see the graph as it stands after the folds so far
(:class:`bnfold.rules.rule.Flood`), so maps add up and a later fold may pass through an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import AffineOp, affine_ops
from bnfold.planner.plan import Fold, Plan, StandIn
from bnfold.planner.propagation import TOO_FAR, Flood, Flooded, pin
from bnfold.planner.scale_groups import Ties
from bnfold.rules.reasons import Kept
from bnfold.rules.rule import Demands

BUDGETS = (32, 512, 20_000)
"""Operators that one flood may ask before it gives up: near solutions first, then farther ones."""

WORST_CONDITION = 64.0
"""How many times larger than the activations a shift around other readers may be."""


@dataclass(frozen=True)
class Trial:
    """One attempt at an operator: after how many folds, and every value that its outcome may depend on."""

    after: int
    seen: set[Value]


Way = tuple[str, Demands]
"""A direction, and the maps that it puts on the two ends of an affine operator."""


def plan(
    graph: Graph,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    refused: Mapping[str, Kept] | None = None,
    scales: bool,
    threshold: bool,
) -> Plan:
    """Decide for every affine operator of ``graph``.

    ``only`` and ``skip`` name nodes or their outputs; ``refused`` holds operators, by the name of their
    output, that an earlier attempt found unfit (a weight that overflows). Without ``scales``, chains that are no
    BatchNorm stay. ``threshold`` lets a BatchNorm before a Relu and an unpadded linear operator become one Max.
    """
    return _Planner(graph, threshold).solve(frozenset(only), frozenset(skip), refused or {}, scales)


class _Planner:
    def __init__(self, graph: Graph, threshold: bool) -> None:
        self.graph = graph
        self.threshold = threshold
        self.gauges: dict[Value, Affine] = {}
        self.gone: set[Node] = set()
        self.bridges: dict[Value, list[Value]] = {}
        self.stand_ins: dict[Node, StandIn] = {}
        self.seen: set[Value] = set()
        self.folded: list[set[Value]] = []
        self.ties = Ties(graph)

    def gauge(self, value: Value) -> Affine:
        """The map that earlier folds left on ``value``: it is now this map of what it was."""
        return self.gauges.get(value, IDENTITY)

    def solve(self, only: frozenset[str], skip: frozenset[str], refused: Mapping[str, Kept], scales: bool) -> Plan:
        """Fold what folds, one affine operator after the other, until none does any more."""
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
        trials: dict[AffineOp, Trial] = {}
        kept = open_
        while open_:
            for op in reversed(open_):
                self.seen = {op.source, op.target}
                outcomes[op] = self.remove(op)
                trials[op] = Trial(len(self.folded), self.seen)
            kept = [op for op in kept if isinstance(outcomes[op], Kept)]
            open_ = [op for op in kept if self._may_differ(trials[op])]
        gauges = {value: map_ for value, map_ in self.gauges.items() if not map_.is_identity}
        return Plan(self.graph, [(op, outcomes[op]) for op in found], gauges)

    def _may_differ(self, trial: Trial) -> bool:
        """True if a fold since the trial changed something that it saw: tried again, it may end otherwise."""
        return any(not trial.seen.isdisjoint(changed) for changed in self.folded[trial.after :])

    def remove(self, op: AffineOp) -> Fold | Kept:
        """Take ``op`` out in the cheapest way; if there is none, say why.

        Ways that stay near are looked for first: what reaches far is tried only when they have failed.
        """
        assert op.map is not None
        if not self.gauge(op.source).invertible:
            return Kept("consumers", f"the input of {op.name!r} has a scale of zero already")
        try:
            map_ = self.gauge(op.target).after(op.map).after(self.gauge(op.source).inverse())
        except ValueError:
            return Kept("channel-axis", f"the map of {op.name!r} varies along several axes")
        if not map_.finite:
            return Kept("overflow", f"the map of {op.name!r} is not finite")
        refusals: dict[str, Kept] = {}
        ways = list(_ways(op, map_))
        for budget in BUDGETS:
            ways = [way for way in ways if not self._hopeless(way, budget, refusals)]
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

    def _hopeless(self, way: Way, budget: int, refusals: dict[str, Kept]) -> bool:
        """True for a way that many values in one class rule out; among few, a flood tells better what is wrong."""
        direction, start = way
        if budget == BUDGETS[0] and not self.ties.many(start, budget):
            return False
        refusal = self.ties.refusal(start)
        if refusal is not None:
            refusals.setdefault(direction, refusal)
        return refusal is not None

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
        flood = Flood(self, op, BUDGETS[-1], self.seen).run(start)
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
        flood = Flood(self, edge, BUDGETS[-1], self.seen).run([(relu.output, map_.inverse()), (op.source, IDENTITY)])
        if isinstance(flood, Kept):
            return None
        level = self.gauge(op.source).inverse().after(Affine.of(0.0, -map_.shift / map_.gain))
        return self._commit(op, flood, "downstream", StandIn("Max", tuple(edge.nodes), op.source, relu.output, level))

    def _cheapest(
        self, op: AffineOp, ways: list[Way], budget: int, refusals: dict[str, Kept]
    ) -> tuple[tuple[Flooded, str] | None, list[Way]]:
        """The success that changes the fewest weights, and the ways that ran out of budget."""
        best: tuple[Flooded, str] | None = None
        farther: list[Way] = []
        for direction, start in ways:
            flood = self._flood(op, budget, start, len(best[0].absorbers) if best else None)
            if isinstance(flood, Flooded):
                flood = self._check(op, flood)
            if isinstance(flood, Flooded):
                best = flood, direction
                if len(flood.absorbers) <= 1:
                    break
            elif flood is TOO_FAR:
                farther.append((direction, start))
            else:
                refusals.setdefault(direction, flood)
        return best, farther

    def _flood(self, op: AffineOp, budget: int, start: Demands, limit: int | None) -> Flooded | Kept:
        """One flood; a far one asks last those around the end that has a great many readers."""
        if budget > BUDGETS[0] and any(len(value.readers) > BUDGETS[0] for value, _ in start):
            start = sorted(start, key=lambda demand: len(demand[0].readers))
        return Flood(self, op, budget, self.seen, limit).run(start)

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

    def _check(self, op: AffineOp, flood: Flooded) -> Flooded | Kept:
        """Numbers of a sensible size must be left on values that others read: they undo the map."""
        before = flood.maps[op.source]
        shared = any(map_.has_shift and len(value.readers) > 1 for value, map_ in flood.maps.items())
        if not shared or not before.invertible:
            return flood
        total = before.after(self.gauge(op.source))
        offset, size = np.abs(total.shift / total.gain), np.ones(())
        if op.statistics is not None and (vectors := total.vectors(1, op.statistics.mean.size)) is not None:
            offset = np.abs(vectors[1] / vectors[0])
            mean, var = op.statistics.mean, op.statistics.var
            size = np.abs(mean) + np.sqrt(var + min(op.statistics.epsilon, var.max(initial=0.0)))
        with np.errstate(divide="ignore", invalid="ignore"):
            condition = float(np.where(offset > 0, offset / size, 0.0).max(initial=0.0))
        if condition > WORST_CONDITION:
            return Kept("conditioning", f"the shift of {op.name!r} is {condition:.3g} times its activations")
        return flood

    def _contract(self, value: Value) -> None:
        """Take a value out of the bridges once only operators that are gone knew it: what it joined, it joins no more.

        A chain of folds, or a thousand from one value, would be walked along by every flood that comes by.
        """
        around = {value.producer, *value.readers}
        if not around <= self.gone or pin(value) is not None:
            return
        first, *others = dict.fromkeys(self.bridges.pop(value))
        self.bridges[first].remove(value)
        for other in others:
            self.bridges[other].remove(value)
            self.bridges[other].append(first)
            self.bridges[first].append(other)

    def _commit(self, op: AffineOp, flood: Flooded, direction: str, stand_in: StandIn | None = None) -> Fold:
        self.folded.append({*flood.maps, op.source, op.target})
        for value, delta in flood.maps.items():
            self.gauges[value] = delta.after(self.gauge(value))
        self.ties.tie(op.source, op.target)
        if stand_in is not None:
            self.stand_ins.update(dict.fromkeys(stand_in.nodes, stand_in))
        else:
            self.gone.update(op.nodes)
            self.bridges.setdefault(op.source, []).append(op.target)
            self.bridges.setdefault(op.target, []).append(op.source)
            self._contract(op.source)
            self._contract(op.target)
        via = tuple(node.op for node in flood.nodes if node not in flood.absorbers)
        direction = "downstream" if direction == "downstream" else "upstream"
        return Fold(op, direction, tuple(flood.absorbers), via, stand_in)


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


_INPUT_SIDE = ("graph-input", "nonlinear", "unknown-op", "control-flow", "quantized-activation")
_ACTIONABLE = ("padding", "consumers", "channel-axis", "dynamic-weights", "overridable", "unknown-shape")


def _most_telling(refusals: dict[str, Kept]) -> Kept:
    """One reason out of those of both directions: what stands in the way and can be changed."""
    up, down = refusals["upstream"], refusals.get("downstream")
    if down is None or down.detail == up.detail:
        return up
    code = down.reason if up.reason in _INPUT_SIDE and down.reason in _ACTIONABLE else up.reason
    return Kept(code, f"upstream: {up.detail}; downstream: {down.detail}")
