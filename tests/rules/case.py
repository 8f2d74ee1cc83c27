"""A case of an operator: a small model, how much of it folds, and why the rest is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from bnfold.planner.plan import Fold
from tests.folding import assert_equivalent, assert_same, feeds_for, fold_proto, run

Builder = Callable[[], ModelProto]


@dataclass(frozen=True)
class Case:
    """``folds`` counts the candidates that fold, ``kept`` has the reasons of the others, ``nodes`` the nodes left."""

    name: str
    build: Builder
    folds: int
    kept: tuple[str, ...] = ()
    nodes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    ulps: float = 64.0


def cases_in(cases: list[Case]) -> Callable[..., Callable[[Builder], Builder]]:
    """Return a decorator that adds a case to the list, under the name of the function that builds its model."""

    def case(
        folds: int = 1, kept: tuple[str, ...] = (), nodes: int | None = None, ulps: float = 64.0, **options: Any
    ) -> Callable[[Builder], Builder]:
        def register(build: Builder) -> Builder:
            cases.append(Case(build.__name__, build, folds, kept, nodes, options, ulps))
            return build

        return register

    return case


def check(case: Case) -> None:
    """Assert that what must fold does, that it computes the same, and that folding again changes nothing."""
    model = case.build()
    folded, plans = fold_proto(model, **case.options)
    outcomes = [outcome for plan in plans for op, outcome in plan.outcomes]
    kept = [outcome for outcome in outcomes if not isinstance(outcome, Fold)]
    assert sum(isinstance(outcome, Fold) for outcome in outcomes) == case.folds, kept
    assert tuple(outcome.reason for outcome in kept) == case.kept, kept
    onnx.checker.check_model(folded, full_check=True)
    if case.nodes is not None:
        assert len(folded.graph.node) == case.nodes
    if not case.folds:
        return
    assert [o.name for o in folded.graph.output] == [o.name for o in model.graph.output]
    assert_equivalent(model, folded, case.ulps)
    again, more = fold_proto(folded, **case.options)
    assert not any(plan.folds for plan in more), "folding twice must change nothing more"
    assert again.SerializeToString() == folded.SerializeToString()


def folding(cases: list[Case]) -> list[Case]:
    """Return the cases of which something folds, for the variations below."""
    return [case for case in cases if case.folds and case.build().graph.node]


def check_fed_constants(case: Case) -> None:
    """Feed each constant in turn at run time: a condition that a rule forgets shows here."""
    model = case.build()
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in listed:
            continue
        fed = _copied(model)
        kept = [other for other in fed.graph.initializer if other.name != tensor.name]
        del fed.graph.initializer[:]
        fed.graph.initializer.extend(kept)
        fed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        feeds = {**feeds_for(fed), tensor.name: numpy_helper.to_array(tensor)}
        _still_folds(fed, feeds, case)


def check_further_outputs(case: Case, most: int | None = None) -> int:
    """Make each value in turn an output of the model; return how many of these models still fold."""
    model = case.build()
    known = {info.name for info in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    count = 0
    for name in made[:most]:
        if name not in known:
            seen = _copied(model)
            seen.graph.output.append(onnx.ValueInfoProto(name=name))
            count += _still_folds(seen, feeds_for(seen), case)
    return count


def _still_folds(model: ModelProto, feeds: dict[str, Any], case: Case) -> bool:
    """Whether the variation folds, in which case it must compute the same; those that can't be run count as not."""
    try:
        expected = run(model, feeds)
    except Exception:  # not every variation is a model that onnxruntime takes
        return False
    if not all(
        np.isfinite(array).all() for array in expected if not isinstance(array, list) and array.dtype.kind == "f"
    ):
        return False
    folded, plans = fold_proto(model, **case.options)
    assert_same(expected, run(folded, feeds), 4 * case.ulps)
    return any(plan.folds for plan in plans)


def _copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
