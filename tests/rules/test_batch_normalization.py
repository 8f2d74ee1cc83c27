"""BatchNormalization: its parameters, channels and variances."""

import numpy as np
import onnx
import pytest

from bnfold.errors import InputError
from tests.builders import batch_norm, bn_node, chain, make, make_unchecked, node, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto, fold_reasons, reasons
from tests.rules.cases.batch_normalization import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestBatchNormalization(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(("variance", "folds"), [(0.0, True), (-5e-6, True), (-1.0, False)])
def test_the_variance_is_judged_with_its_epsilon(variance, folds):
    model = chain(node("Identity", ["c"], ["d"]), held={"bn_var": np.array([variance, 1.0, 1.0, 1.0], "f4")})
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    if folds:
        assert_equivalent(model, folded, 512.0)


def test_a_degenerate_variance_is_reported_with_its_epsilon():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_var"] = np.full(4, -2e-5, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    _, (plan,) = fold_proto(parse(graph, held))
    ((_, kept),) = plan.outcomes
    assert (kept.reason, kept.detail.split()[-1]) == ("degenerate-variance", "-1e-05")


def test_a_variance_of_zero_without_epsilon_is_degenerate():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_var"] = np.array([1.0, 0.0, 1.0, 1.0], "f4")
    for epsilon, folds in ((0.0, False), (1e-7, True)):
        nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "y", "bn", epsilon=epsilon)]
        _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
        assert reasons(plan) == ["folds" if folds else "degenerate-variance"]


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("part", ["scale", "bias", "mean", "var"])
def test_parameters_of_another_size_than_the_channels_are_kept(channels, part):
    """All four parameters must have as many entries as there are channels."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held[f"bn_{part}"] = np.full(channels, 0.5, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    _, (plan,) = fold_proto(parse(graph, held))
    assert reasons(plan) == ["folds" if channels == 4 else "channel-axis"]


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_a_batch_norm_of_another_size_than_its_input_is_kept(channels):
    held = {**batch_norm("bn", channels, 1), "w": weights(1, 4, 3, 1, 1)}
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    _, (plan,) = fold_proto(parse(graph, held))
    assert reasons(plan) == ["channel-axis"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, "C"), "folds"), (("N", 4), "folds"), (("N", 5), "channel-axis"), (("N", 3), "channel-axis")],
)
def test_the_channels_are_the_second_axis(shape, expected):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"])]
    found, _ = fold_reasons(make_unchecked(nodes, [tensor("x", [*shape, 4, 4])], [tensor("y", None)], held))
    assert found == [expected]


def test_parameters_that_are_no_vectors_are_kept():
    held = {f"bn_{part}": np.array(1.0, "f4") for part in ("scale", "bias", "mean", "var")}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    held["w"] = weights(1, 1, 3, 1, 1)
    found, _ = fold_reasons(make_unchecked(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    assert found == ["channel-axis"]


@pytest.mark.parametrize("shape", [[4], [4, 4], None])
def test_a_tensor_of_one_axis_has_no_channels(shape):
    held = batch_norm("bn", 4, 1)
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Mul", ["b", "two"], ["y"])]
    try:
        _, (plan,) = fold_proto(
            make(nodes, [tensor("x", shape)], [tensor("y", None)], held | {"two": np.array(2, "f4")})
        )
    except InputError:
        assert shape == [4]
        return
    norm = next(outcome for op, outcome in plan.outcomes if op.form == "BatchNormalization")
    assert (norm.reason == "channel-axis") is (shape == [4]), norm


@pytest.mark.parametrize("shape", [[1, "C", 4, 4], ["N", 4, 4, 4], ["N", "C", 4, 4], ["N", 5, 4, 4], [1, 5, 4, 4]])
def test_unknown_channels_are_as_many_as_the_parameters(shape):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"])]
    try:
        _, (plan,) = fold_proto(make(nodes, [tensor("x", shape)], [tensor("y", None)], held))
    except (InputError, onnx.shape_inference.InferenceError):
        assert 5 in shape
        return
    ((_, outcome),) = plan.outcomes
    assert getattr(outcome, "reason", "folds") == ("channel-axis" if 5 in shape else "folds")


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_batch_norm_without_one_of_its_parameters_is_not_folded(missing):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1)}
    norm = bn_node("c", "b", "bn")
    norm.input[missing] = ""
    nodes = [node("Conv", ["x", "w"], ["c"]), norm, node("Sigmoid", ["b"], ["y"])]
    try:
        _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    except (InputError, onnx.shape_inference.InferenceError):
        return
    assert not plan.folds
