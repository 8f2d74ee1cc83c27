"""Weights and tensors with several consumers."""

import numpy as np
import pytest

from tests.builders import batch_norm, bn_node, make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto, reasons
from tests.planner.cases.sharing import CASES
from tests.rules.operator_tests import CaseTests


class TestSharing(CaseTests):
    cases = CASES


@pytest.mark.parametrize("op", ["Split", "LSTM"])
def test_a_node_whose_first_output_is_unnamed_is_a_consumer(op):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1), "r": weights(2, 1, 8, 2), "k": weights(3, 1, 8, 4)}
    if op == "Split":
        consumer = node("Split", ["c"], ["", "part"], axis=1)
    else:
        consumer = node("LSTM", ["s", "k", "r"], ["", "part"], hidden_size=2)
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Transpose", ["c"], ["s"], perm=[2, 0, 1]),
        consumer,
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    outputs = [tensor("y", [1, 4, 6]), tensor("part", None)]
    model = make(nodes, [tensor("x", [1, 3, 6])], outputs, held, opset=13)
    folded, (plan,) = fold_proto(model)
    if op == "Split":
        assert reasons(plan) == ["consumers"]
    else:
        assert plan.folds
        assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("first", [False, True])
def test_an_offset_goes_to_the_operand_without_other_consumers(first):
    """Either operand could absorb it, but the other consumer of one would have to undo it."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 3, 1, 1)}
    held["u"], held["bn_scale"] = weights(3, 2, 4, 1, 1), np.ones(4, "f4")
    held["bn_var"] = np.ones(4, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["shared"], name="shared layer"),
        node("Conv", ["x", "v"], ["own"], name="own layer"),
        node("Conv", ["shared", "u"], ["e"], name="consumer"),
        node("Add", ["own", "shared"] if first else ["shared", "own"], ["d"]),
        bn_node("d", "b", "bn", epsilon=0.0),
        node("Sigmoid", ["b"], ["y"]),
        node("Sigmoid", ["e"], ["z"]),
    ]
    outputs = [tensor("y", [1, 4, 3, 3]), tensor("z", [1, 2, 3, 3])]
    model = make(nodes, [tensor("x", [1, 3, 3, 3])], outputs, held)
    folded, (plan,) = fold_proto(model)
    assert [n.name for n in plan.folds[0].into] == ["own layer"]
    assert_equivalent(model, folded, 512.0)
