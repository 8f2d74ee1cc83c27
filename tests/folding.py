"""What tests do with a model: fold it in memory, run both on onnxruntime, compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from bnfold.planner.planner import Plan
from tests.support import assert_same, feeds_for, fold_proto, run

__all__ = [
    "assert_equivalent",
    "assert_same",
    "feeds_for",
    "fold_and_compare",
    "fold_proto",
    "fold_reasons",
    "reasons",
    "run",
]


def reasons(plan: Plan) -> list[str]:
    """Return the reason code of each candidate that is kept, and "folds" for one that is folded."""
    return [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]


def fold_reasons(model: ModelProto) -> tuple[list[str], ModelProto]:
    """Fold a model of one graph; return the :func:`reasons`, and the folded model."""
    folded, (plan,) = fold_proto(model)
    return reasons(plan), folded


def assert_equivalent(
    model: ModelProto, folded: ModelProto, ulps: float = 64.0, feeds: dict[str, np.ndarray] | None = None
) -> None:
    """Assert that both compute the same on onnxruntime, within ``ulps`` of the largest entry."""
    feeds = feeds_for(model) if feeds is None else feeds
    assert_same(run(model, feeds), run(folded, feeds), ulps)


def fold_and_compare(model: ModelProto, feeds: dict[str, np.ndarray] | None = None, **options: Any) -> int:
    """Fold the model, assert that the result computes the same, and return the number of folds."""
    folded, plans = fold_proto(model, **options)
    assert_equivalent(model, folded, 256.0, feeds)
    return sum(len(plan.folds) for plan in plans)
