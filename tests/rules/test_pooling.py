"""MaxPool, AveragePool and their global forms; what a maximum passes."""

import numpy as np
import pytest

from tests.builders import batch_norm, bn_node, make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto, reasons
from tests.rules.cases.pooling import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestPooling(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("shape", [[1, 3, "H", "W"], [1, 3, 8, 8], None])
@pytest.mark.parametrize("dilations", [[1, 1], [2, 2], [1, 2], None])
def test_a_window_without_gaps_is_never_outside_its_input(shape, dilations):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1), "n": np.array([0, 0, 0, 0])}
    for part, value in (("scale", 2.0), ("bias", 0.5), ("mean", 0.0), ("var", 1.0)):
        held[f"bn_{part}"] = np.full(3, value, "f4")
    attributes = {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], **({"dilations": dilations} if dilations else {})}
    inputs = [tensor("x", shape or [1, 3, 8, 8])]
    middle = [node("Conv", ["x", "w"], ["c"])]
    if shape is None:
        inputs.append(tensor("to", ["n"], 7))
        middle.append(node("Reshape", ["c", "to"], ["r"]))
    nodes = [
        *middle,
        node("MaxPool", ["r" if shape is None else "c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    gaps = dilations is not None and max(dilations) > 1
    assert bool(plan.folds) is (not gaps or shape == [1, 3, 8, 8]), plan.outcomes
    if gaps and not plan.folds:
        assert reasons(plan) == ["padding"]
    assert_equivalent(
        model, folded, 512.0, {"x": weights(5, 1, 3, 8, 8), **({"to": np.array([1, 3, 8, 8])} if shape is None else {})}
    )


def test_a_window_with_dilation_2_may_miss_an_input_of_size_1():
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    pool = node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1])
    nodes = [node("Conv", ["x", "w"], ["c"]), pool, bn_node("p", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 1, 1])], [tensor("y", None)], held, opset=19, ir_version=9)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["padding"]


@pytest.mark.parametrize("op", ["MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize(("lowest", "folds"), [(0.0, True), (0.5, True), (-0.5, False)])
def test_a_maximum_passes_scales_of_zero(op, lowest, folds):
    attributes = {"kernel_shape": [2, 2]} if op == "MaxPool" else {"axes": [2, 3]} if op.startswith("Reduce") else {}
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_scale"] = np.array([1.0, 2.0, lowest, 0.5], "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node(op, ["c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "dilation", "pad"), [(2, 3, 1), (4, 5, 1), (3, 3, 1), (2, 2, 1), (2, 3, 0), (8, 3, 1)]
)
def test_a_dilated_window_may_miss_its_input(op, size, dilation, pad):
    """Its result is then no maximum and no mean of the input."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    attributes = {"kernel_shape": [2, 2], "dilations": [dilation] * 2, "pads": [pad] * 4}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node(op, ["c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, size, size])], [tensor("y", None)], held, opset=19, ir_version=9)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (size >= dilation or pad == 0), plan.outcomes
    if size + 2 * pad > dilation:
        assert_equivalent(model, folded, 512.0)
