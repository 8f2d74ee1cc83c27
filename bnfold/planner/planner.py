"""The planner: which transforms to put on which values, so that affine operators become the identity.

The new graph may carry ``A(v) = gain * v + shift`` (the *transform* of the value) in place of any value ``v`` as long
as its producer and its consumers agree. An affine operator ``y = M x`` disappears where ``A(x) = A(y) M``. The
planner removes them one after the other, BatchNorms before factors, last ones first. For each it tries to move the
transform to the producer, to the consumers, or scale and offset to different sides; each attempt is a *propagation*
(:mod:`bnfold.planner.propagation`): the operators around are asked by their rules what follows, until all of it is
absorbed or one refuses. A propagation changes nothing until it has succeeded, and the cheapest success is taken. Rules
see the graph as it stands after the folds so far (:class:`bnfold.rules.rule.RuleContext`), so transforms compose and a
later fold may pass through an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.activation_sizes import MOVES
from bnfold.planner.balancing import Balance
from bnfold.planner.candidates import AffineOp, candidates_of
from bnfold.planner.conditioning import Conditioning
from bnfold.planner.grown import producer_of, resembles_batch_norm
from bnfold.planner.plan import Fold, Plan, ResidualOp
from bnfold.planner.propagation import TOO_FAR, Propagation, PropagationState, immovable
from bnfold.planner.scale_groups import ScaleGroups
from bnfold.planner.strategies import Strategy, most_telling, strategies_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Assignments

BUDGETS = (32, 512, 20_000)
"""Operators that one propagation may ask before it gives up: near solutions first, then farther ones."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at an operator: after how many folds, and every value that its outcome may depend on."""

    after: int
    seen: set[Value]


def plan(
    graph: Graph,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    refused: Mapping[str, Refusal] | None = None,
    balanced: Mapping[str, Sequence[Balance]] | None = None,
    scales: bool,
    threshold: bool,
) -> Plan:
    """Decide for every affine operator of ``graph``.

    ``only`` and ``skip`` name nodes or their outputs. By the names of their outputs, ``refused`` holds operators that
    an earlier attempt found unfit (a weight that overflows), ``balanced`` those that a scale may make fit. Without
    ``scales``, chains that are no BatchNorm stay. ``threshold`` lets a BatchNorm before a Relu and an unpadded linear
    operator become one Max.
    """
    planner = Planner(graph, threshold)
    planned = planner.solve(frozenset(only), frozenset(skip), refused or {}, scales)
    return planner.balance(planned, balanced) if balanced else planned


def in_turn(ops: list[AffineOp]) -> list[AffineOp]:
    """Return operators in the order in which they are tried: last ones first, factors after what is a BatchNorm."""
    return [op for scales in (False, True) for op in reversed(ops) if (op.form == "scale") is scales]


def _left_out(op: AffineOp) -> Refusal:
    return Refusal("skipped", f"{op.name!r} was left out on request")


def _is_fed(value: Value) -> bool:
    """Return True for an input of the model, laid out otherwise or in another type: what reads it is preprocessing."""
    while (node := value.producer) is not None and node.op in ("Cast", *MOVES) and node.inputs[0] is not None:
        value = node.inputs[0]
    return value.is_input


class Planner:
    """Folds one graph; see :func:`plan`."""

    def __init__(self, graph: Graph, threshold: bool) -> None:
        self.graph = graph
        self.threshold = threshold
        self.transforms: dict[Value, Affine] = {}
        self.removed: set[Node] = set()
        self.aliases: dict[Value, list[Value]] = {}
        self.residuals: dict[Node, ResidualOp] = {}
        self.sources: dict[Value, Value] = {}
        self.seen: set[Value] = set()
        self.folded: list[set[Value]] = []
        self.scale_groups = ScaleGroups(graph)
        self.conditioning = Conditioning()

    def current(self, value: Value) -> Affine:
        """The transform that earlier folds left on ``value``: it is now this transform of what it was."""
        return self.transforms.get(value, IDENTITY)

    def solve(self, only: frozenset[str], skip: frozenset[str], refused: Mapping[str, Refusal], scales: bool) -> Plan:
        """Fold what folds, one affine operator after the other, until none does any more."""
        found = candidates_of(self.graph)
        outcomes: dict[AffineOp, Fold | Refusal] = {}
        open_, scales_left = [], []
        for op in found:
            if (only and not op.answers_to(only)) or op.answers_to(skip) or (op.form == "scale" and not scales):
                outcomes[op] = _left_out(op)
                if op.form == "scale" and not (only or op.answers_to(skip) or op.refusal):
                    scales_left.append(op)
            elif refusal := op.refusal or refused.get(op.target.name):
                outcomes[op] = refusal
            elif op.reads:
                outcomes[op] = Fold(op, "downstream", tuple(dict.fromkeys(node for node, _ in op.reads)), ())
            else:
                open_.append(op)
        attempts: dict[AffineOp, Attempt] = {}
        kept = open_
        while open_:
            for op in in_turn(open_):
                self.seen = {op.source, op.target}
                outcomes[op] = self.remove(op)
                attempts[op] = Attempt(len(self.folded), self.seen)
            kept = [op for op in kept if isinstance(outcomes[op], Refusal)]
            open_ = [op for op in kept if self._may_differ(attempts[op])]
            grown = [op for op in scales_left if op not in attempts and self._resembles_batch_norm(op)]
            kept, open_ = kept + grown, open_ + grown
        outcomes |= {op: _left_out(op) for op in scales_left if isinstance(outcomes[op], Refusal)}
        return self._plan([(op, outcomes[op]) for op in found])

    def _plan(self, outcomes: list[tuple[AffineOp, Fold | Refusal]]) -> Plan:
        transforms = {value: transform for value, transform in self.transforms.items() if not transform.is_identity}
        return Plan(self.graph, outcomes, transforms)

    def balance(self, planned: Plan, balanced: Mapping[str, Sequence[Balance]]) -> Plan:
        """Let values carry the scales that folds need for their weights to fit, where all around them agree."""
        outcomes = []
        for op, outcome in planned.outcomes:
            if isinstance(outcome, Fold):
                changed = [node for one in balanced.get(op.target.name, ()) for node in self._balance(one)]
                outcome = replace(outcome, balanced=tuple(dict.fromkeys(changed)))
            outcomes.append((op, outcome))
        return self._plan(outcomes)

    def _balance(self, one: Balance) -> Iterable[Node]:
        """Return the nodes that take a scale in, and let its value carry it; none where one around refuses it."""
        start = AffineOp([], one.value, one.value, None, "scale")
        state = Propagation(self, start, BUDGETS[-1], self.seen).run([(one.value, one.scale)])
        if isinstance(state, Refusal):
            return ()
        self._carry(state)
        return state.absorbers

    def _resembles_batch_norm(self, op: AffineOp) -> bool:
        """Return True for a chain that is no BatchNorm, but looks like one after the folds so far."""
        transform = self._transform_of(op)
        around = producer_of(op.source, self.sources.get), self._consumers(op.target)
        return isinstance(transform, Affine) and resembles_batch_norm(op, transform, around, self.residuals)

    def _may_differ(self, attempt: Attempt) -> bool:
        """Return True if a fold since the attempt changed something that it saw: tried again, it may end otherwise."""
        return any(not attempt.seen.isdisjoint(changed) for changed in self.folded[attempt.after :])

    def remove(self, op: AffineOp) -> Fold | Refusal:
        """Take ``op`` out in the cheapest way; if there is none, say why.

        Strategies that stay near are looked for first: what reaches far is tried only when they have failed.
        """
        assert op.transform is not None
        if not (op.target.consumers or op.target.is_output or op.target.captured):  # nothing depends on it
            return self.commit(op, PropagationState(), "downstream")
        transform = self._transform_of(op)
        if isinstance(transform, Refusal):
            return transform
        refusals: dict[str, Refusal] = {}
        strategies = list(strategies_of(op, transform))
        for budget in BUDGETS:
            strategies = [strategy for strategy in strategies if not self._hopeless(strategy, budget, refusals)]
            best, strategies = self._cheapest(op, strategies, budget, refusals)
            if best is not None:
                return self.commit(op, *best)
        for direction, _ in strategies:
            refusals.setdefault(direction, TOO_FAR)
        if refusals["upstream"].reason == "no-bias":
            return self._fold_scale_only(op, transform)
        if self._leaves_one_add(op, refusals.get("downstream")):
            scale_only = self._fold_scale_only(op, transform, downstream=True)
            if isinstance(scale_only, Fold):
                return scale_only
        if self.threshold and (fold := self._fold_as_max(op, transform)) is not None:
            return fold
        return most_telling(refusals)

    def _leaves_one_add(self, op: AffineOp, downstream: Refusal | None) -> bool:
        """Return True where the scale may go alone: into products behind, or from an input's normalization to a layer
        that pads, which reads zeros beside ``x + b / a`` too. Elsewhere an Add would cost what the BatchNorm does.
        """
        consumers = self._consumers(op.target)
        if consumers and all(consumer.op == "MatMul" for consumer in consumers):
            return True
        if downstream is None or downstream.reason != "padding" or not _is_fed(op.source):
            return False
        return op.source.rank is not None and op.nodes[-1].opset >= 7

    def _transform_of(self, op: AffineOp) -> Affine | Refusal:
        """Return what ``op`` computes after the folds so far."""
        assert op.transform is not None
        if not self.current(op.source).invertible:
            return Refusal("consumers", f"the input of {op.name!r} has a scale of zero already")
        try:
            transform = self.current(op.target).after(op.transform).after(self.current(op.source).inverse())
        except ValueError:
            return Refusal("channel-axis", f"the transform of {op.name!r} varies along several axes")
        if not transform.finite:
            return Refusal("overflow", f"the transform of {op.name!r} is not finite")
        return transform

    def _hopeless(self, strategy: Strategy, budget: int, refusals: dict[str, Refusal]) -> bool:
        """True for a strategy that a large scale group rules out; among few, a propagation explains the refusal."""
        direction, start = strategy
        if budget == BUDGETS[0] and not self.scale_groups.many(start, budget):
            return False
        refusal = self.scale_groups.refusal(start)
        if refusal is not None:
            refusals.setdefault(direction, refusal)
        return refusal is not None

    def _fold_scale_only(self, op: AffineOp, transform: Affine, *, downstream: bool = False) -> Fold | Refusal:
        """Only the gain goes, to the producer or into the products behind; the shift stays as one Add."""
        assert op.transform is not None
        gain = transform.gain_only()
        if not downstream:
            start = [(op.source, gain), (op.target, IDENTITY)]
        elif gain.invertible:
            start = [(op.source, IDENTITY), (op.target, gain.inverse())]
        else:
            return TOO_FAR
        state = Propagation(self, op, BUDGETS[-1], self.seen).run(start)
        if isinstance(state, Refusal):
            return state
        residual = ResidualOp("Add", tuple(op.nodes), op.source, op.target, op.transform)
        return self.commit(op, state, "downstream" if downstream else "upstream", residual)

    def _fold_as_max(self, op: AffineOp, transform: Affine) -> Fold | None:
        """``relu(a x + b) = a max(x, -b / a) + b``: the gain and shift go on, the maximum stays. None if they can't."""
        consumers = self._consumers(op.target)
        relu = consumers[0] if len(consumers) == 1 else None
        if relu is None or relu.op != "Relu" or relu.opset < 8 or not transform.positive or not transform.invertible:
            return None
        candidate = AffineOp([*op.nodes, relu], op.source, relu.output, transform, op.form)
        state = Propagation(self, candidate, BUDGETS[-1], self.seen).run(
            [(relu.output, transform.inverse()), (op.source, IDENTITY)]
        )
        if isinstance(state, Refusal):
            return None
        level = self.current(op.source).inverse().after(Affine.of(0.0, -transform.shift / transform.gain))
        return self.commit(
            op, state, "downstream", ResidualOp("Max", tuple(candidate.nodes), op.source, relu.output, level)
        )

    def _cheapest(
        self, op: AffineOp, strategies: list[Strategy], budget: int, refusals: dict[str, Refusal]
    ) -> tuple[tuple[PropagationState, str] | None, list[Strategy]]:
        """The success that changes the fewest weights, and the strategies that ran out of budget."""
        best: tuple[PropagationState, str] | None = None
        farther: list[Strategy] = []
        for direction, start in strategies:
            state = self._propagate(op, budget, start, len(best[0].absorbers) if best else None)
            if isinstance(state, PropagationState):
                best = state, direction
                if len(state.absorbers) <= 1:
                    break
            elif state is TOO_FAR:
                farther.append((direction, start))
            else:
                refusals.setdefault(direction, state)
        return best, farther

    def _propagate(
        self, op: AffineOp, budget: int, start: Assignments, limit: int | None
    ) -> PropagationState | Refusal:
        """One propagation; a far one asks last those around the end that has a great many consumers."""
        if budget > BUDGETS[0] and any(len(value.consumers) > BUDGETS[0] for value, _ in start):
            start = sorted(start, key=lambda assignment: len(assignment[0].consumers))
        return Propagation(self, op, budget, self.seen, limit).run(start)

    def _consumers(self, value: Value) -> list[Node]:
        """Who reads ``value``, beyond operators that are removed already; empty where a caller may read it too."""
        consumers: list[Node] = []
        pending, seen = [value], set[Value]()
        while pending:
            current = pending.pop()
            seen.add(current)
            if current.is_output or current.captured:
                return []
            consumers += [node for node in current.consumers if node not in self.removed]
            pending += [v for v in self.aliases.get(current, ()) if v not in seen and v.producer in self.removed]
        return consumers

    def _contract(self, value: Value) -> None:
        """Take a value out of the aliases once only removed operators have read or made it.

        A chain of folds, or a thousand from one value, would be walked along by every propagation that comes by.
        """
        around = {value.producer, *value.consumers}
        if not around <= self.removed or immovable(value) is not None:
            return
        linked = dict.fromkeys(self.aliases.pop(value))
        if not linked:  # nothing is read there, nor where it came from
            return
        first, *others = linked
        self.aliases[first].remove(value)
        for other in others:
            self.aliases[other].remove(value)
            self.aliases[other].append(first)
            self.aliases[first].append(other)

    def _carry(self, state: PropagationState) -> None:
        for value, delta in state.assigned.items():
            self.transforms[value] = delta.after(self.current(value))

    def commit(self, op: AffineOp, state: PropagationState, direction: str, residual: ResidualOp | None = None) -> Fold:
        """Take a success: the transforms that it assigned, and the operator out."""
        self.folded.append({*state.assigned, op.source, op.target})
        self._carry(state)
        self.scale_groups.join(op.source, op.target)
        if residual is not None:
            self.residuals.update(dict.fromkeys(residual.nodes, residual))
        else:
            self.removed.update(op.nodes)
            self.sources[op.target] = op.source
            self.aliases.setdefault(op.source, []).append(op.target)
            self.aliases.setdefault(op.target, []).append(op.source)
            self._contract(op.source)
            self._contract(op.target)
        via = tuple(node.op for node in state.nodes if node not in state.absorbers)
        direction = "downstream" if direction == "downstream" else "upstream"
        return Fold(op, direction, tuple(state.absorbers), via, residual)
