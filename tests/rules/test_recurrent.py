"""LSTM, GRU and RNN."""

import pytest

from tests.builders import ANY, STATISTICS, batch_norm, bn, make, node, normal, parse, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, reasons
from tests.rules.cases.recurrent import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestRecurrent(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_the_features_of_a_recurrent_layer_are_those_of_its_weights(op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    held = {"g": weights(1, 6) + 2, "h": weights(2, 6), "w": weights(3, 1, gates * 5, 6)}
    held["r"] = weights(4, 1, gates * 5, 5)
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "g"], ["p"]),
        node("Add", ["p", "h"], ["d"]),
        node(op, ["d", "w", "r"], ["y"], hidden_size=5),
    ]
    model = make(nodes, [tensor("x", ["time", "batch", 6])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_computed_weights_of_a_recurrent_layer_are_kept():
    held = {**batch_norm("bn", 5, 1), "r": weights(1, 1, 5, 5)}
    graph = """(float[3, 2, 6] x, float[1, 5, 6] v) => (float[] y) {
        s = Sigmoid (v)
        w = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        "", y = RNN <hidden_size = 5> (x, w, r)
    }"""
    model = parse(graph, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["nonlinear"]


def test_a_recurrent_layer_without_its_first_output():
    nodes = [bn("x", "u"), node("Transpose", ["u"], ["s3"], perm=[2, 0, 1])]
    nodes.append(node("LSTM", ["s3", "w", "r"], ["", "y"], hidden_size=5))
    held = {"w": normal(1, 20, 4), "r": normal(1, 20, 5), **STATISTICS}
    assert fold_and_compare(make(nodes, [tensor("x", [2, 4, 3])], [ANY], held)) == 1
