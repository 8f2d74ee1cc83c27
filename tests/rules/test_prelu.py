"""PRelu: gains of either sign against slopes of any kind."""

import numpy as np
import pytest

from tests.builders import (
    batch_norm,
    bn_node,
    exact_batch_norm,
    initializer_names,
    make,
    node,
    parse,
    tensor,
    weights,
    without_offset,
)
from tests.folding import assert_equivalent, assert_same, feeds_for, fold_proto, fold_reasons, reasons, run
from tests.rules.cases.prelu import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestPRelu(OperatorTests):
    cases, rows = CASES, ROWS


def test_a_negative_scale_does_not_pass_a_slope_of_zero():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"], held["bn_var"] = np.array([1.0, -1.0, 0.5, 2.0], "f4"), np.full(4, 4.0, "f4")
    held["bn_bias"] = held["bn_mean"] = np.zeros(4, "f4")
    held["slope"] = np.array([0.2, 0.0, 0.3, 0.1], "f4").reshape(4, 1, 1)
    graph = """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
        c = Conv (x, w)
        s = Sigmoid (c)
        b = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        p = PRelu (b, slope)
        y = Conv (p, v)
    }"""
    model = parse(graph, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["nonlinear"]
    held["slope"][1] = 0.4
    folded, (plan,) = fold_proto(parse(graph, held))
    assert plan.folds
    feeds = feeds_for(folded)
    model = parse(graph, held)
    assert_same(run(model, feeds), run(folded, feeds))


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-1.0, -2.0, -0.5, -3.0], [1.0, -1.0, 0.0, -2.0]])
@pytest.mark.parametrize("slope", [0.0, 0.2, -0.3, 1.0, -1.0])
@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize("behind", [False, True])
def test_which_transforms_pass_a_prelu(gains, slope, shift, behind):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"], held["bn_mean"] = np.array(gains, "f4"), np.zeros(4, "f4")
    held["bn_bias"] = np.full(4, shift, "f4")
    held["slope"] = np.full((4, 1, 1), slope, "f4")
    middle = (
        [node("PRelu", ["c", "slope"], ["p"]), bn_node("p", "d", "bn"), node("Sigmoid", ["d"], ["e"])]
        if behind
        else [node("Sigmoid", ["c"], ["s"]), bn_node("s", "b", "bn"), node("PRelu", ["b", "slope"], ["e"])]
    )
    nodes = [node("Conv", ["x", "w"], ["c"]), *middle, node("Conv", ["e", "v"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 2, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    signs = np.sign(np.array(gains))
    passes = (
        (signs > 0).all()
        or ((signs < 0).all() and (slope > 0 if behind else slope != 0))
        or (slope == 1.0 and (signs != 0).all())
    )
    mixed = len(set(signs)) > 1 and 0 not in signs
    if not mixed:
        assert bool(plan.folds) is bool(shift == 0 and passes), plan.outcomes
    assert_equivalent(model, folded, 2048.0)


@pytest.mark.parametrize("slope", [0.0, -0.5, 0.25])
@pytest.mark.parametrize("gain", [-0.5, -2.0])
@pytest.mark.parametrize("behind", [False, True])
def test_a_negative_scale_inverts_the_slope(slope, gain, behind):
    """Behind the BatchNorm only a slope other than 0 can be inverted; in front of it, only a positive one."""
    held, _ = exact_batch_norm(gain, 0.0)
    held |= {"w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1), "slope": np.full((4, 1, 1), slope, "f4")}
    if behind:
        middle = [node("Conv", ["x", "w"], ["c"]), node("PRelu", ["c", "slope"], ["p"])]
        middle += [bn_node("p", "b", "bn", epsilon=0.0), node("Sigmoid", ["b"], ["e"])]
    else:
        middle = [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["s"]), bn_node("s", "b", "bn", epsilon=0.0)]
        middle += [node("PRelu", ["b", "slope"], ["p"]), node("Conv", ["p", "v"], ["e"])]
    model = make([*middle, node("Sigmoid", ["e"], ["y"])], [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    ((_, outcome),) = plan.outcomes
    assert getattr(outcome, "reason", "folds") == ("folds" if slope > 0 or (slope and not behind) else "nonlinear")
    if slope == 0 and not behind:
        assert "whose slope is 0 there" in outcome.detail
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("slope", [np.inf, np.nan, 0.0])
def test_slopes_are_unchanged_by_positive_scales(slope):
    held = without_offset("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1)}
    held["slope"] = np.array([0.1, slope, 0.2, 0.3], "f4").reshape(4, 1, 1)
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        p = PRelu (c, slope)
        y = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    folded, (plan,) = fold_proto(parse(graph, held))
    assert plan.folds, plan.outcomes
    assert "slope" in initializer_names(folded)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (4, 1, 1)])
def test_one_slope_for_all_channels_remains_one(shape):
    held = without_offset("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1), "slope": np.full(shape, 0.25, "f4")}
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        p = PRelu (c, slope)
        y = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert initializer_names(folded) == {"w_bnfold", "slope"}
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_slope_that_is_not_finite_is_not_written_again(value):
    """The layers around it change, the slope does not."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    held["bn_bias"] = held["bn_mean"] = np.zeros(4, "f4")
    held["slope"] = np.array([0.1, value, 0.2, 0.3], "f4").reshape(4, 1, 1)
    graph = """(float[1, 4, 4, 4] x) => (float[] y) {
        s = Sigmoid (x)
        b = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        p = PRelu (b, slope)
        y = Conv (p, v)
    }"""
    found, folded = fold_reasons(parse(graph, held))
    assert found == ["folds"]
    assert "slope" in {tensor.name for tensor in folded.graph.initializer}
