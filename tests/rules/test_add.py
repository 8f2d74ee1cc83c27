"""Add, Sub and Sum: of constants and of several computed values."""

import numpy as np
import pytest

from bnfold.rules.operands import with_shape_of
from tests.builders import (
    CONSTANT,
    STATISTICS,
    batch_norm,
    bn_node,
    chain,
    make,
    node,
    normal,
    of_opset,
    parse,
    tensor,
    weights,
)
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, fold_reasons, reasons
from tests.rules.cases.add import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestAdd(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("first", [False, True])
def test_a_constant_absorbs_an_offset(op, first):
    """With ``--only-batchnorm`` the operator is kept and its constant changes."""
    model = chain(node(op, ["k", "c"] if first else ["c", "k"], ["d"], name="op"), held={"k": CONSTANT})
    folded, (plan,) = fold_proto(model, scales=False)
    assert plan.folds
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(("op", "broadcast"), [("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1), ("Sum", 0)])
def test_sums_of_computed_values_before_opset_7(op, broadcast):
    """Before opset 7 an operator broadcasts only where its attribute says so."""
    attributes = {"broadcast": 1} if broadcast else {}
    model = chain(node("Sigmoid", ["c"], ["s"]), node("Conv", ["s", "v"], ["t"]), node("Conv", ["s", "v"], ["u"]),
                  node(op, ["t", "u"], ["d"], **attributes), held={"v": weights(5, 4, 4, 1, 1)})  # fmt: skip
    model = of_opset(model, 6)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["unknown-op" if broadcast else "folds"]


@pytest.mark.parametrize("channels", [2, 3])
def test_one_number_for_all_channels_does_not_grow_before_opset_7(channels):
    held = {**batch_norm("bn", channels, 1), "w": weights(1, channels, 3, 1, 1), "k": np.array([0.5], "f4")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Add", ["c", "k"], ["d"], broadcast=1),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = of_opset(make(nodes, [tensor("x", [2, 3, 4, 4])], [tensor("y", [2, channels, 4, 4])], held), 6)
    _, (plan,) = fold_proto(model, scales=False)
    ((_, kept),) = [pair for pair in plan.outcomes if pair[0].form == "BatchNormalization"]
    assert "can't grow" in kept.detail


def test_a_constant_for_each_sample_absorbs_an_offset_before_opset_7():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 2, 4, 4, 4)}
    graph = """(float[2, 3, 4, 4] x) => (float[2, 4, 4, 4] y) {
        c = Conv (x, w)
        d = Add (c, k)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = of_opset(parse(graph, held), 6)
    _, (plan,) = fold_proto(model, scales=False)
    assert [fold.op.form for fold in plan.folds] == ["BatchNormalization"], plan.outcomes


def test_an_operand_of_fewer_axes_is_not_aligned_with_the_channels():
    """Its second axis is as long as the channel axis by chance."""
    held = {
        **batch_norm("bn", 4, 1),
        "w": weights(1, 4, 3, 1, 1),
        "v": weights(2, 4, 3, 1, 1),
        "to": np.array([4, 4, 6]),
    }
    graph = """(float[1, 3, 4, 6] x) => (float[1, 4, 4, 6] y) {
        c = Conv (x, w)
        d = Conv (x, v)
        p = Reshape (d, to)
        a = Add (c, p)
        b = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    found, folded = fold_reasons(model)
    assert found == ["unknown-shape"]
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("size", [1.0, 1e-15])
def test_a_small_offset_is_not_negligible_among_small_numbers(size):
    """An offset is negligible only beside larger offsets."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1) * size, "v": weights(2, 4, 3, 1, 1) * size}
    held["bn_bias"], held["bn_mean"] = np.full(4, 3 * size, "f4"), np.zeros(4, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        d = Conv (x, v)
        a = Add (c, d)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    model = parse(graph, held)
    found, folded = fold_reasons(model)
    assert found == ["folds"]
    assert_equivalent(model, folded, 512.0)


def test_a_constant_keeps_its_shape_where_possible():
    """Before opset 7 the shape decides how the constant is broadcast."""
    assert with_shape_of(np.ones((1, 4, 1, 1)), (4,)).shape == (4,)
    assert with_shape_of(np.ones((1, 4, 1, 1)), (1, 1)).shape == (4, 1, 1)
    assert with_shape_of(np.ones((1, 8)), (1, 1)).shape == (1, 8)
    assert with_shape_of(np.ones((2, 4, 1, 1)), (1,)).shape == (2, 4, 1, 1)


@pytest.mark.parametrize("values", [["c"], ["c", "c"], ["c", "c", "c"]])
def test_a_sum_of_any_number_of_operands(values):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Sum", values, ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_a_sum_with_two_constants():
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        t = Conv (x, w)
        a = Sum (t, k1, k2)
        y = BatchNormalization (a, s, b, m, v)
    }"""
    fold_and_compare(
        parse(graph, {"w": normal(4, 4, 1, 1), "k1": normal(4, 1, 1), "k2": normal(4, 1, 1), **STATISTICS})
    )


def test_the_broadcast_of_opset_6_does_not_grow():
    graph = """(float[2, 4, 6, 6] x) => (float[] y) {
        t = Conv (x, w)
        a = Add <broadcast = 1> (t, k)
        y = BatchNormalization <is_test = 1> (a, s, b, m, v)
    }"""
    model = parse(graph, {"w": normal(4, 4, 1, 1), "k": np.array([0.5], "f4"), **STATISTICS}, opset=6)
    folded, _ = fold_proto(model)
    assert all(len(t.dims) in (1, 4) for t in folded.graph.initializer)
