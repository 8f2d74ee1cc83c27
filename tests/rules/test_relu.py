"""Relu and LeakyRelu, and the maximum that a BatchNorm in front of a Relu becomes on request."""

import numpy as np
import pytest

from tests.builders import STATISTICS, batch_norm, bn_node, exact_batch_norm, make, node, normal, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto
from tests.rules.cases.relu import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestRelu(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(("gain", "shift", "says"), [(1.0, 1.0, "an offset does"), (-1.0, 0.0, "not positive does")])
def test_the_reason_why_a_relu_passes_no_transform(gain, shift, says):
    held, norm = exact_batch_norm(gain, shift)
    held |= {"w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), norm, node("Relu", ["b"], ["r"]), node("Conv", ["r", "w"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", None)], held))
    ((_, kept),) = plan.outcomes
    assert says in kept.detail


@pytest.mark.parametrize(("gain", "folds"), [(2.0, 2), (-2.0, 1)])
def test_positive_scales_pass_the_maximum_that_replaces_a_batch_norm(gain, folds):
    """A negative scale would make it a minimum. (The zero padding keeps offsets from passing the pool.)"""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "v": weights(2, 2, 4, 1, 1)}
    held["one_scale"], held["one_bias"] = np.full(4, gain, "f4"), np.zeros(4, "f4")
    held["one_mean"], held["two_scale"] = np.zeros(4, "f4"), np.array([0.5, 1.0, 2.0, 3.0], "f4")
    graph = """(float[1, 4, 4, 4] x) => (float[1, 2, 4, 4] y) {
        s = Sigmoid (x)
        b = BatchNormalization (s, one_scale, one_bias, one_mean, one_var)
        p = AveragePool <count_include_pad = 1, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b)
        c = BatchNormalization (p, two_scale, two_bias, two_mean, two_var)
        r = Relu (c)
        d = Conv (r, v)
        y = Sigmoid (d)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert len(plan.folds) == folds, plan.outcomes
    assert sum(n.op_type == "Max" for n in folded.graph.node) == 1
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("opset", [7, 8, 13])
def test_a_batch_norm_becomes_a_maximum_since_opset_8(opset):
    held = {**batch_norm("bn", 4, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    graph = """(float[1, 4, 4, 4] x) => (float[1, 2, 4, 4] y) {
        s = Sigmoid (x)
        c = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        r = Relu (c)
        d = Conv (r, v)
        y = Sigmoid (d)
    }"""
    model = parse(graph, held, opset=opset)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert bool(plan.folds) is (opset >= 8)
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    "consumers", [["Relu"], ["Relu", "Sigmoid"], ["Sigmoid", "Relu"], ["Relu", "Relu"], ["Sigmoid"]]
)
def test_a_batch_norm_becomes_a_maximum_for_its_only_consumer(consumers):
    held = {**batch_norm("bn", 4, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn")]
    for index, consumer in enumerate(consumers):
        nodes.append(node(consumer, ["b"], [f"r{index}"]))
        nodes.append(node("Conv", [f"r{index}", "v"], [f"d{index}"]))
        nodes.append(node("Sigmoid", [f"d{index}"], [f"y{index}"]))
    outputs = [tensor(f"y{index}", [1, 2, 4, 4]) for index in range(len(consumers))]
    model = make(nodes, [tensor("x", [1, 4, 4, 4])], outputs, held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert bool(plan.folds) is (consumers == ["Relu"])
    assert_equivalent(model, folded, 512.0)


def test_folding_twice_with_thresholds_changes_nothing_more():
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        g = Sigmoid (x)
        u = BatchNormalization (g, s, b, m, v)
        z = BatchNormalization (u, one, b, m, v)
        r = Relu (z)
        y = Conv (r, w)
    }"""
    held = {"w": normal(3, 4, 1, 1), **STATISTICS, "s": np.abs(STATISTICS["s"]), "one": np.ones(4, "f4")}
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert len(plan.folds) == 2
    assert not fold_proto(folded, threshold=True)[1][0].folds
    assert_equivalent(model, folded, 256)
