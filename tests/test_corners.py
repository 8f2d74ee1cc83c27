"""Corners of the rules that changed code could have got wrong unnoticed: written for mutants that survived."""

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run


def test_a_negative_gain_does_not_enter_a_prelu_of_slope_zero():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.array([1.0, -1.0, 0.5, 2.0], "f4")
    held["bn_bias"] = held["bn_mean"] = np.zeros(4, "f4")
    held["slope"] = np.array([0.2, 0.0, 0.3, 0.1], "f4").reshape(4, 1, 1)
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Sigmoid", ["c"], ["s"]),
        bn_node("s", "b", "bn"),
        node("PRelu", ["b", "slope"], ["p"]),
        node("Conv", ["p", "v"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 2, 4, 4])], held)
    _, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", None) for _, outcome in plan.outcomes] == ["nonlinear"]
    held["slope"][1] = 0.4
    folded, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 2, 4, 4])], held))
    assert plan.folds
    feeds = feeds_for(folded)
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 2, 4, 4])], held)
    assert_same(run(model, feeds), run(folded, feeds))


def chain(*nodes, held=(), gains=None):
    """Conv, some nodes from ``c`` to ``d``, BatchNormalization, Sigmoid."""
    parts = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), **dict(held)}
    if gains is not None:
        parts["bn_scale"] = np.array(gains, "f4")
    every = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        *nodes,
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    return make(every, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], parts)


CONSTANT = np.array([0.5, -1.0, 2.0, 0.25], "f4").reshape(1, 4, 1, 1)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [False, True])
def test_arithmetic_between_a_layer_and_its_batch_norm(op, first):
    """Also with a BatchNorm behind it whose map has a shift that the constant takes; one over x is no map."""
    model = chain(node(op, ["k", "c"] if first else ["c", "k"], ["d"], name="op"), held={"k": CONSTANT})
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is not (op == "Div" and first)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("first", [False, True])
def test_a_constant_takes_the_shift_of_both_sides(op, first):
    """With --only-batchnorm the operator stays, its constant changes."""
    model = chain(node(op, ["k", "c"] if first else ["c", "k"], ["d"], name="op"), held={"k": CONSTANT})
    folded, (plan,) = fold_proto(model, scales=False)
    assert plan.folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-1.0, -2.0, -0.5, -3.0], [1.0, -1.0, 2.0, -2.0]])
def test_integer_weights_take_gains_of_any_sign(gains):
    rng = np.random.default_rng(0)
    held = {"q": rng.integers(-100, 100, (4, 4, 1, 1)).astype("i1"), "s": np.array([0.01, 0.02, 0.03, 0.04], "f4")}
    nodes = [node("DequantizeLinear", ["q", "s"], ["v"], axis=0), node("Conv", ["c", "v"], ["d"])]
    model = chain(*nodes, held=held, gains=gains)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(("variance", "folds"), [(0.0, True), (-5e-6, True), (-1.0, False)])
def test_what_counts_is_the_variance_with_its_epsilon(variance, folds):
    model = chain(node("Identity", ["c"], ["d"]), held={"bn_var": np.array([variance, 1.0, 1.0, 1.0], "f4")})
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    if folds:
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)
