"""Mul, Div and Neg."""

import numpy as np
import onnx
import pytest

from bnfold.api import fold
from tests.builders import ANY, STATISTICS, bn, conv_then, make, node, normal, of_opset, parse, tensor, weights
from tests.folding import assert_equivalent, feeds_for, fold_and_compare, fold_proto
from tests.rules.cases.mul import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestMul(OperatorTests):
    cases, rows = CASES, ROWS


def test_a_constant_without_entries(tmp_path):
    held = {"w": weights(1, 4, 3, 1, 1), "k": np.ones((0, 4, 1, 1), "f4")}
    graph = """(float[0, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        y = Mul (c, k)
    }"""
    model = parse(graph, held)
    onnx.save(model, tmp_path / "model.onnx")
    assert fold(tmp_path / "model.onnx", tmp_path / "folded.onnx").verdict in ("unchanged", "equivalent")


@pytest.mark.parametrize(("shape", "axis"), [((1,), -5), ((4,), -4), ((1, 1, 4, 1, 1), 0)])
def test_an_axis_beyond_the_first_is_invalid_before_opset_7(shape, axis):
    held = {"w": weights(1, 4, 4, 1, 1), "k": np.full(shape, 2.0, "f4")}
    nodes = [node("Mul", ["x", "k"], ["m"], broadcast=1, axis=axis), node("Conv", ["m", "w"], ["y"])]
    graph = make(nodes[1:], [tensor("m", [1, 4, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    graph.graph.input[0].name = "x"
    graph.graph.node.insert(0, nodes[0])
    _, (plan,) = fold_proto(of_opset(graph, 6))
    assert not plan.folds


@pytest.mark.parametrize(("k", "folds"), [(np.float32(2.0), True), (np.full(1, 2.0, "f4"), False)])
def test_only_a_scalar_is_a_candidate_where_the_rank_is_unknown(k, folds):
    """A vector of one entry might add an axis."""
    held = {"w": weights(1, 4, 3, 1, 1), "k": k}
    graph = """(float[1, 3, 4, 4] x, int64[?] shape) => (float[] y) {
        c = Conv (x, w)
        r = Reshape (c, shape)
        m = Mul (r, k)
        y = Sigmoid (m)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    assert_equivalent(model, folded, 512.0, {**feeds_for(model), "shape": np.array([4, 16], "i8")})


def test_a_dead_channel_behind_a_product():
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        a = Mul (x, k)
        y = BatchNormalization (a, s, b, m, v)
    }"""
    held = {"k": normal(4, 1, 1), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4")}
    fold_and_compare(parse(graph, held))


def test_a_dead_channel_behind_a_division():
    zeros = np.zeros(4, "f4")
    held = {"k": np.float32(255), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4"), "b": zeros, "m": zeros}
    fold_and_compare(make([node("Div", ["x", "k"], ["u"]), bn("u")], [tensor("x", [2, 4, 4, 4])], [ANY], held))


def test_a_factor_of_zero_from_an_earlier_fold():
    dead = normal(4, 1, 1)
    dead[1] = 0
    nodes = [
        node("Mul", ["t", "k1"], ["p"]),
        node("Conv", ["x", "w2"], ["c0"]),
        node("Relu", ["c0"], ["r"]),
        bn("r", "z"),
        node("Transpose", ["p"], ["mt"], perm=[0, 1, 3, 2]),
        node("Mul", ["mt", "k2"], ["u"]),
        node("Add", ["u", "z"], ["y"]),
    ]
    fold_and_compare(conv_then(*nodes, w2=normal(4, 3, 1, 1), k1=normal(4, 1, 1), k2=dead))
