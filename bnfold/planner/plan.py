"""What a plan says: which affine operators go, where their transforms went, what every value carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnfold.ir.graph import Graph, Node, Value
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import AffineOp
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Assignments


@dataclass(frozen=True, eq=False)
class ResidualOp:
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

    def propagate(self, before: Affine | None, after: Affine | None) -> list[Assignments] | Refusal:
        """An Add ties the gains and takes any shift; a Max passes any transform with positive gains."""
        known = before if before is not None else after
        assert known is not None
        if self.op == "Max" and not known.positive:
            return Refusal("nonlinear", f"a scale that is not positive does not pass the Max at {self.target.name!r}")
        passed = known.gain_only() if self.op == "Add" else known
        if before is None or after is None:
            return [[(self.target if after is None else self.source, passed)]]
        agreed = passed.agrees(after.gain_only() if self.op == "Add" else after)
        return [[]] if agreed else Refusal("consumers", f"{self.target.name!r} would need two different transforms")

    def data(self, current: Callable[[Value], Affine]) -> Affine:
        """The constant that the final transforms leave, as the shift of a transform."""
        before, after = current(self.source), current(self.target)
        if self.op == "Add":
            moved = after.after(self.constant).shift_only()
            return Affine.of(1.0, -before.shift).after(moved)
        return before.after(Affine.of(0.0, self.constant.shift)).shift_only()


@dataclass(frozen=True)
class Fold:
    """An affine operator that goes: which way its transform went, through which operators, into which nodes.

    ``residual`` is what stays in its place, if anything does. ``balanced`` are the nodes that powers of two changed so
    that its weights fit their type.
    """

    op: AffineOp
    direction: str
    into: tuple[Node, ...]
    via: tuple[str, ...]
    residual: ResidualOp | None = None
    balanced: tuple[Node, ...] = ()

    @property
    def changed(self) -> tuple[Node, ...]:
        """Every node whose weights it changed, each once."""
        return tuple(dict.fromkeys((*self.into, *self.balanced)))


@dataclass
class Plan:
    """What happens to each affine operator of one graph, and the transform of every value that gets one."""

    graph: Graph
    outcomes: list[tuple[AffineOp, Fold | Refusal]]
    transforms: dict[Value, Affine]

    @property
    def folds(self) -> list[Fold]:
        """The folds alone."""
        return [outcome for _, outcome in self.outcomes if isinstance(outcome, Fold)]

    def current(self, value: Value) -> Affine:
        """Return what the new graph carries in place of ``value``."""
        return self.transforms.get(value, IDENTITY)

    def touched(self) -> list[Node]:
        """The nodes around transformed values that are kept, in order."""
        removed = {node for fold in self.folds for node in fold.op.nodes}
        removed.update(node for fold in self.folds if fold.residual for node in fold.residual.nodes)
        around = {node for value in self.transforms for node in (value.producer, *value.consumers) if node}
        return [node for node in self.graph.nodes if node in around and node not in removed]
