"""ReduceMean, ReduceSum, ReduceMax and ReduceMin; see test_pooling.py for the gains that a maximum passes."""

import numpy as np
import pytest

from tests.builders import make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto, reasons
from tests.rules.cases.reduction import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestReduction(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_no_transform_passes_a_reduction_of_the_axis_it_varies_along(op):
    """Though an Expand behind it makes as many channels again."""
    held = {"k": np.array([2.0, 3.0, 5.0], "f4").reshape(1, 3, 1, 1), "w": weights(1, 4, 3, 1, 1), "b": weights(2, 4)}
    held |= {"to": np.array([1, 3, 4, 4]), "axes": np.array([1])}
    nodes = [
        node("Mul", ["x", "k"], ["m"]),
        node(op, ["m", "axes"], ["r"], keepdims=1),
        node("Expand", ["r", "to"], ["t"]),
        node("Conv", ["t", "w", "b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=18)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["channel-axis"]
    assert_equivalent(model, folded, 1.0)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax"])
def test_computed_axes_are_kept(op):
    """The number of entries that are added depends on them."""
    held = {"w": weights(1, 4, 3, 1, 1), "b": weights(2, 4), "two": np.array(2.0, "f4"), "one": np.array(1.0, "f4")}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node(op, ["c", "axes"], ["r"], keepdims=1),
        node("Mul", ["r", "two"], ["m"]),
        node("Add", ["m", "one"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("axes", [1], 7)]
    model = make(nodes, inputs, [tensor("y", None)], held, opset=18)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["unknown-shape"]
    for axis in (1, 3):
        assert_equivalent(model, folded, 512.0, {"x": weights(3, 1, 3, 4, 4), "axes": np.array([axis])})
