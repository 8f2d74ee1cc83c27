"""Constants in all their forms: stored, computed, sparse, listed as inputs."""

import numpy as np
from onnx import TensorProto, helper

from tests.builders import ANY, STATISTICS, X, batch_norm, bn, make, node, normal, parse, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto
from tests.planner.cases.constants import CASES
from tests.rules.operator_tests import CaseTests


class TestConstants(CaseTests):
    cases = CASES


def test_sparse_initializers_are_constants():
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3.0, 4.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [2], [2, 7]), [4, 4, 1, 1])
    model = make(
        [node("Conv", ["x", "w"], ["t"], name="conv"), bn("t")], [X], [ANY], {"w": normal(4, 4, 1, 1), **STATISTICS}
    )
    model.graph.initializer.remove(model.graph.initializer[0])
    model.graph.sparse_initializer.append(sparse)
    assert fold_and_compare(model) == 1


def test_constants_are_rounded_before_a_cast_to_integers():
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        d = Mul (c, ten)
        i = Cast <to = 7> (d)
        s = Cast <to = 1> (i)
        t = Conv (x, w)
        y = BatchNormalization (t, s, b, m, v)
    }"""
    rest = {name: data for name, data in STATISTICS.items() if name != "s"}
    held = {"w": normal(4, 4, 1, 1), "c": np.full(4, 0.7, "f4"), "ten": np.float32(10), **rest}
    assert fold_and_compare(parse(graph, held)) == 1


def test_a_computed_factor_that_depends_on_rounding_is_kept():
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1), "three": np.full((4, 1, 1), 3, "f4")}
    held["large"] = np.array(1e8, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        sum = Add (three, large)
        k = Sub (sum, large)
        c = Conv (x, w)
        d = Mul (c, k)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert {outcome.reason for _, outcome in plan.outcomes} == {"dynamic-weights"}
    assert_equivalent(model, folded, 1.0)
