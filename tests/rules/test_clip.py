"""Clip: its bounds move with the transform, or keep it."""

import numpy as np
import pytest

from tests.builders import conv_then, exact_batch_norm, make, node, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto
from tests.rules.cases.clip import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestClip(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize(
    ("low", "high", "shift"), [(0.0, 0.6, 0.0), (0.2, 1.0, -1.0), (None, 0.6, 0.0), (0.2, None, 0.0), (0.0, 0.6, 1.0)]
)
def test_both_bounds_of_a_clip_are_rewritten_where_one_changes(opset, low, high, shift):
    """A scale changes only the second of the bounds 0 and 0.6; a transform that keeps 1 changes only the first."""
    held, norm = exact_batch_norm(2.0, shift)
    held |= {"w": weights(1, 3, 4, 1, 1)}
    bounds = {name: np.array(bound, "f4") for name, bound in (("low", low), ("high", high)) if bound is not None}
    if opset < 11:
        clip = node("Clip", ["s"], ["c"], **{{"low": "min", "high": "max"}[k]: float(v) for k, v in bounds.items()})
    else:
        held |= bounds
        clip = node("Clip", ["s", *(name if name in bounds else "" for name in ("low", "high"))], ["c"])
    norm.input[0] = "c"
    nodes = [node("Conv", ["x", "v"], ["s"]), clip, norm, node("Sigmoid", ["b"], ["y"])]
    held["v"] = weights(2, 4, 3, 1, 1)
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held, opset=opset)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("low", [0.0, -np.inf])
def test_a_scale_of_zero_does_not_pass_a_clip(low):
    """It could not be inverted, and 0 times an infinite bound is not a number."""
    held, norm = exact_batch_norm(0.0, 2.0)
    held |= {"v": weights(2, 4, 3, 1, 1), "low": np.array(low, "f4"), "high": np.array(6.0, "f4")}
    norm.input[0] = "c"
    nodes = [node("Conv", ["x", "v"], ["s"]), node("Clip", ["s", "low", "high"], ["c"]), norm]
    model = make([*nodes, node("Sigmoid", ["b"], ["y"])], [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "nonlinear"
    assert folded == model


def test_a_clip_whose_bounds_are_swapped_is_not_negated():
    nodes = [node("Clip", ["t", "low", "high"], ["z"]), node("Mul", ["z", "k"], ["y"])]
    fold_and_compare(conv_then(*nodes, low=np.float32(2), high=np.float32(-1), k=np.float32(-2)))
