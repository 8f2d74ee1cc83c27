"""MatMul: on either side, with an Add behind it or one that the fold adds."""

import numpy as np
import pytest

from tests.builders import (
    ANY,
    STATISTICS,
    batch_norm,
    bn,
    bn_node,
    make,
    node,
    normal,
    of_opset,
    parse,
    tensor,
    weights,
)
from tests.folding import assert_equivalent, assert_same, feeds_for, fold_and_compare, fold_proto, reasons, run
from tests.rules.cases.matmul import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestMatMul(OperatorTests):
    cases, rows = CASES, ROWS


def test_channels_on_the_first_axis_are_reported():
    """With the matrix on the left, the channels are the rows."""
    graph = """(float[3, 4] x) => (float[2, 4] y) {
        s = Sigmoid (x)
        m = Mul (s, k)
        p = MatMul (w, m)
        y = Sigmoid (p)
    }"""
    held = {"k": weights(1, 3, 4) + 2, "w": weights(2, 2, 3)}
    _, (plan,) = fold_proto(parse(graph, held))
    ((_, kept),) = plan.outcomes
    assert "has 3 channels on axis 0" in kept.detail


def test_a_matrix_on_the_left_absorbs_an_offset():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 3, 4), "k": weights(2, 3, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("MatMul", ["w", "b"], ["m"]),
        node("Add", ["m", "k"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", [2, 3, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
    held["w"] = weights(1, 4, 4)  # square: either axis could be that of the channels
    held["k"] = weights(2, 4, 1)
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", [2, 4, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_an_added_offset_needs_a_known_rank():
    held = {"k": weights(1, 6, 4), "bn_scale": np.full(4, 2.0, "f4"), "bn_bias": np.full(4, 3.0, "f4")}
    held |= {"bn_mean": np.zeros(4, "f4"), "bn_var": np.ones(4, "f4")}
    graph = """(float[2, 6] x, int64[n] shape) => (float[] y) {
        m = MatMul (x, k)
        r = Reshape (m, shape)
        b = BatchNormalization (r, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["unknown-shape"]
    assert_equivalent(model, folded, 1.0, {"x": weights(5, 2, 6), "shape": np.array([1, 4, 2], "i8")})


@pytest.mark.parametrize("left", [False, True])
def test_a_product_absorbs_the_offsets_of_two_batch_norms(left):
    """The second fold starts from the weights of the first."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "w": weights(1, *([3, 4] if left else [4, 3]))}
    held["k"] = weights(2, *([3, 1] if left else [3]))
    back = [] if left else [node("Transpose", ["c"], ["t"], perm=[0, 2, 1])]
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "one"),
        bn_node("b", "c", "two"),
        *back,
        node("MatMul", ["w", "c"] if left else ["t", "w"], ["m"]),
        node("Add", ["m", "k"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("opset", [6, 7, 8, 17])
def test_an_offset_behind_a_product_becomes_an_add(opset):
    """From opset 7 on, in which Add broadcasts without an attribute."""
    held = {**batch_norm("bn", 5, 1), "k": weights(1, 4, 5)}
    graph = """(float[3, 4] x) => (float[3, 5] y) {
        s = Sigmoid (x)
        m = MatMul (s, k)
        b = BatchNormalization (m, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = of_opset(parse(graph, held), opset)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (opset >= 7), plan.outcomes
    assert [n.op_type for n in folded.graph.node][2] == ("Add" if plan.folds else "BatchNormalization")
    if plan.folds:
        assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_add_behind_a_product_absorbs_later_offsets(shift):
    """The Add that one fold puts behind MatMul absorbs the offset of another BatchNorm in front of it."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 5, 2), "k": weights(1, 4, 5)}
    held["one_bias"] = held["one_mean"] = np.full(4, shift, "f4")
    graph = """(float[3, 4] x) => (float[3, 5] y) {
        s = Sigmoid (x)
        b = BatchNormalization (s, one_scale, one_bias, one_mean, one_var)
        m = MatMul (b, k)
        c = BatchNormalization (m, two_scale, two_bias, two_mean, two_var)
        y = Sigmoid (c)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert [n.op_type for n in folded.graph.node] == ["Sigmoid", "MatMul", "Add", "Sigmoid"], plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_two_batch_norms_in_front_of_a_product():
    """The offset of the first goes through weights that have the scale of the second already."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "k": weights(1, 4, 5), "a": weights(2, 5)}
    graph = """(float[3, 4] x) => (float[3, 5] y) {
        s = Sigmoid (x)
        b = BatchNormalization (s, one_scale, one_bias, one_mean, one_var)
        c = BatchNormalization (b, two_scale, two_bias, two_mean, two_var)
        m = MatMul (c, k)
        d = Add (m, a)
        y = Sigmoid (d)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_a_dead_channel_behind_a_product_of_matrices():
    held = {"w": normal(6, 4), **STATISTICS, "s": np.array([2, 0, 0.5, -1], "f4")}
    assert fold_and_compare(make([node("MatMul", ["x", "w"], ["p"]), bn("p")], [tensor("x", [2, 6])], [ANY], held)) == 1
