"""Is it the most? The planner's folds beside an exhaustive search over sets, orders, directions and alternatives.

``python -m tests.fuzz.most_folds COUNT [SEED]`` searches small random networks, and prints each of which fewer
BatchNorms were folded than possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.ir.graph import Graph
from bnfold.planner.candidates import AffineOp, candidates_of
from bnfold.planner.plan import Fold
from bnfold.planner.planner import BUDGETS, Planner, in_turn, plan
from bnfold.planner.propagation import Propagation, PropagationState
from bnfold.planner.strategies import strategies_of
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import Assignments
from tests.fuzz.networks import Draw, network
from tests.fuzz.runner import run_cases

MOST_CANDIDATES = 6
"""Affine operators of a network that is searched through."""

MOST_STATES = 400
"""Sets of folds, in some order, that are tried of one network; a network of more counts as cut short."""

Step = tuple[AffineOp, PropagationState, str]


class _EverySolution(Propagation):
    """Propagates as the planner does, and goes on where the planner takes the first success."""

    def solutions(self, start: Assignments) -> Iterator[PropagationState]:
        """Yield each way in which all operators around agree."""
        untried = [(self.state.position(), [], start)]
        while untried:
            position, queue, assignments = untried.pop()
            self.state.rewind(position)
            self.asked.clear()
            refusal = self._accept(assignments, queue, None, trace=False)
            while refusal is None and queue and self.budget > 0:
                node = queue.pop(self._next(queue))
                if not self._has_news(node):
                    continue
                alternatives = self._ask(node)
                self.budget -= 1
                if isinstance(alternatives, Refusal):
                    refusal = alternatives
                    continue
                untried += [(self.state.position(), list(queue), other) for other in alternatives[1:]]
                refusal = self._accept(alternatives[0], queue, node, trace=False)
            if refusal is None and not queue:
                yield PropagationState(dict(self.state.assigned), dict(self.state.nodes), dict(self.state.absorbers))


def searched(graph: Graph) -> tuple[int, int, bool]:
    """Return how many BatchNorms the planner folds, how many can be folded, and whether all was tried."""
    candidates = [op for op in candidates_of(graph) if op.refusal is None and not op.reads]
    usual = most = _batch_norms([fold.op for fold in plan(graph, scales=True, threshold=False).folds])
    stack: list[list[Step]] = [[]]
    seen: set[tuple[object, ...]] = set()
    while stack and len(seen) < MOST_STATES and most < _batch_norms(candidates):
        steps = stack.pop()
        planner = _after(graph, steps)
        state = _signature(planner)
        if state in seen:
            continue
        seen.add(state)
        if steps:
            most = max(most, _completed(graph, steps, candidates))
        done = {op for op, _, _ in steps}
        stack += [[*steps, step] for op in candidates if op not in done for step in _steps(planner, op)]
    return usual, most, bool(stack) and most < _batch_norms(candidates)


def _steps(planner: Planner, op: AffineOp) -> Iterator[Step]:
    """Every way to remove one operator, after the folds so far."""
    assert op.transform is not None
    if not planner.current(op.source).invertible:
        return
    try:
        transform = planner.current(op.target).after(op.transform).after(planner.current(op.source).inverse())
    except ValueError:
        return
    if transform.finite:
        for direction, start in strategies_of(op, transform):
            for state in _EverySolution(planner, op, BUDGETS[1], set()).solutions(start):
                yield op, state, direction


def _after(graph: Graph, steps: list[Step]) -> Planner:
    planner = Planner(graph, threshold=False)
    for step in steps:
        planner.commit(*step)
    return planner


def _completed(graph: Graph, steps: list[Step], candidates: list[AffineOp]) -> int:
    """How many BatchNorms are folded where the planner goes on from some folds as it always does."""
    planner = _after(graph, steps)
    folded = [op for op, _, _ in steps]
    left, before = [op for op in candidates if op not in folded], -1
    while before != len(left):
        before = len(left)
        made = {op: planner.remove(op) for op in in_turn(left)}
        folded += [op for op in left if isinstance(made[op], Fold)]
        left = [op for op in left if not isinstance(made[op], Fold)]
    return _batch_norms(folded)


def _batch_norms(ops: list[AffineOp]) -> int:
    return sum(op.form != "scale" for op in ops)


def _signature(planner: Planner) -> tuple[object, ...]:
    carried = sorted(
        (value.name, transform.gain.tobytes(), transform.shift.tobytes(), transform.gain.shape)
        for value, transform in planner.transforms.items()
    )
    return frozenset(planner.removed), tuple(carried)


def check(draw: Draw, _folder: Path, index: int) -> dict[str, int]:
    """Search one random network."""
    model = network(draw)
    return compare(model, f"case {index}")


def compare(model: ModelProto, name: str) -> dict[str, int]:
    """Search one network, and print it if more BatchNorms can be folded."""
    (graph, *others) = OnnxGraphs(model).scopes
    candidates = candidates_of(graph)
    if others or not 1 < len(candidates) <= MOST_CANDIDATES:
        return {"too small or large": 1}
    usual, most, cut = searched(graph)
    if most > usual:
        print(f"{name}: {usual} folded, {most} possible: {[node.op_type for node in model.graph.node]}", flush=True)
    return {"searched": 1, "cut short": int(cut), "fewer than possible": int(most > usual), "folded": usual}


def main() -> None:
    """See the module."""
    run_cases(check)


if __name__ == "__main__":
    main()
