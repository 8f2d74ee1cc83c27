"""Constants in all their forms: stored, computed, sparse, listed as inputs."""

import numpy as np
from onnx import TensorProto, helper

from tests.builders import ANY, STATISTICS, X, batch_norm, bn, bn_node, make, node, normal, tensor, weights
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
    nodes = [
        node("Mul", ["c", "ten"], ["d"]),
        node("Cast", ["d"], ["i"], to=TensorProto.INT64),
        node("Cast", ["i"], ["s"], to=TensorProto.FLOAT),
        node("Conv", ["x", "w"], ["t"]),
        bn("t"),
    ]
    rest = {name: data for name, data in STATISTICS.items() if name != "s"}
    held = {"w": normal(4, 4, 1, 1), "c": np.full(4, 0.7, "f4"), "ten": np.float32(10), **rest}
    assert fold_and_compare(make(nodes, [X], [ANY], held)) == 1


def test_a_computed_factor_that_depends_on_rounding_is_kept():
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1), "three": np.full((4, 1, 1), 3, "f4")}
    held["large"] = np.array(1e8, "f4")
    nodes = [
        node("Add", ["three", "large"], ["sum"]),
        node("Sub", ["sum", "large"], ["k"]),
        node("Conv", ["x", "w"], ["c"]),
        node("Mul", ["c", "k"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert {outcome.reason for _, outcome in plan.outcomes} == {"dynamic-weights"}
    assert_equivalent(model, folded, 1.0)
