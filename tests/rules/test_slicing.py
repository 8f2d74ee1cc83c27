"""Slice, Split and Gather."""

import numpy as np
import pytest

from tests.builders import batch_norm, between_factors, node, parse, weights
from tests.folding import assert_equivalent, fold_proto, fold_reasons, reasons
from tests.rules.cases.slicing import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestSlicing(OperatorTests):
    cases, rows = CASES, ROWS


def test_a_split_with_an_unnamed_output_is_kept():
    """The size of that output is unknown, and so is where the others start."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1), "sizes": np.array([2, 2])}
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        c = Conv (x, w)
        one, "" = Split <axis = 1> (c, sizes)
        b = BatchNormalization (one, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    found, _ = fold_reasons(parse(graph, held))
    assert found == ["unknown-shape"]


def test_a_slice_of_a_huge_tensor_passes_the_transform_of_the_whole():
    """The opposite strategy, with a transform of the slice alone, would take too many numbers."""
    held = {"k": weights(1, 1, 4096, 1, 1) + 9, "v": weights(2, 1, 4096, 1, 1) + 9}
    held |= {"from": np.array([0]), "to": np.array([1024]), "on": np.array([2])}
    graph = """(float[1, 4096, 2048, 1] x) => (float[] y) {
        s = Sigmoid (x)
        m = Mul (s, k)
        c = Slice (m, from, to, on)
        d = Mul (c, v)
        y = Sigmoid (d)
    }"""
    model = parse(graph, held)
    found, folded = fold_reasons(model)
    assert sorted(found) == ["folds", "nonlinear"]
    assert sorted(made.op_type for made in folded.graph.node) == ["Mul", "Sigmoid", "Sigmoid", "Slice"]


def test_a_slice_passes_a_transform_that_the_rest_has_not():
    """A transform that is the same for all channels of the slice folds into their part of the layer in front."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 4), "s": np.array([0], "i8")}
    held |= {"e": np.array([2], "i8"), "z": np.array([4], "i8"), "a": np.array([1], "i8")}
    for part, value in (("scale", 2.0), ("bias", 0.5), ("mean", -1.0), ("var", 1.5)):
        held[f"bn_{part}"] = np.full(2, value, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w, k)
        p = Slice (c, s, e, a)
        q = Slice (c, e, z, a)
        b = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
        t = Sigmoid (b)
        u = Sigmoid (q)
        y = Concat <axis = 1> (t, u)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    ("axes", "steps", "folds"), [([1, 2], [1, -1], 0), ([1, 2], [-1, 1], 0), ([2], [-1], 1), ([1], [-1], 1)]
)
def test_a_slice_along_two_axes_of_a_transform_is_kept(axes, steps, folds):
    """It would have to be cut along both axes; a step of -1 reverses the entries without changing the shape."""
    held = {"from": np.array([0 if s > 0 else -1 for s in steps]), "to": np.array([9 if s > 0 else -9 for s in steps])}
    held |= {"along": np.array(axes), "by": np.array(steps)}
    model = between_factors(
        [node("Slice", ["c", "from", "to", "along", "by"], ["d"])],
        held,
        [2, 4, 4, 3],
        [2, 4, 4, 3],
        weights(2, 4, 4, 1) + 2,
    )
    folded, (plan,) = fold_proto(model)
    assert_equivalent(model, folded, 512.0)
    assert reasons(plan).count("folds") == folds


def test_a_slice_of_no_axis_passes_all_transforms():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "none": np.array([], "i8")}
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        d = Slice (c, none, none)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("gain", [2.0, [2.0, 3.0]])
def test_an_output_of_a_split_has_no_transform_without_the_whole(gain):
    """The whole has no transform, by its other consumer, before its parts are considered."""
    held = {"k": np.ones((1, 2, 1, 1), "f4") * np.reshape(np.array(gain, "f4"), (1, -1, 1, 1))}
    graph = """(float[2, 4, 3, 3] x) => (float[2, 2, 3, 3] y) {
        a, b = Split <axis = 1> (x)
        unread = Concat <axis = 1> (b, x, x)
        y = Mul (b, k)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    assert_equivalent(model, folded, 1.0)
