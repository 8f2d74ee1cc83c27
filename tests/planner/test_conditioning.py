"""What a fold may cost: an offset that other consumers have to undo, measured by the activations."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.builders import ANY, STATISTICS, batch_norm, bn, bn_node, make, node, normal, parse, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, reasons


def forked(offset, mean, shared=True):
    """Return a tensor with a BatchNorm and, if shared, another layer; the offset is ``offset`` times the scale."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4 if shared else 3, 1, 1)}
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), np.full(4, 2.0 * (offset + mean), "f4")
    held["bn_mean"], held["bn_var"] = np.full(4, mean, "f4"), np.full(4, 1.0 - 1e-5, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["b"], ["s"]),
        node("Conv", ["c" if shared else "x", "v"], ["t"]),
        node("Sigmoid", ["t"], ["u"]),
        node("Mul", ["s", "u"], ["y"]),
    ]
    return make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)


@pytest.mark.parametrize(
    ("offset", "mean", "folds"),
    [
        (1.7, 0.0, True),  # √(1.7² + 1²) is less than twice the deviation of 1
        (1.8, 0.0, False),
        (9.0, 10.0, True),  # as large as the activations themselves
        (12.0, 10.0, False),
        (-29.0, 10.0, True),
        (-10.0, 10.0, True),  # the mean goes: less is rounded than before
        (12.0, 3.0, False),
    ],
)
def test_an_offset_around_other_consumers_is_measured_by_the_activations(offset, mean, folds):
    model = forked(offset, mean)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


@pytest.mark.parametrize(
    ("epsilon", "var", "bias", "folds"),
    [
        (1e-3, [1.0, 1.0, 1.0, 1.0], 2.0, True),
        (1e6, [1.0, 1.0, 1.0, 1.0], 2.0, False),
        (1e30, [1.0, 1.0, 1.0, 1.0], 2.0, False),
        (1e-3, [0.0, 1.0, 1.0, 1.0], 2.0, True),
        (1e-3, [0.0, 0.0, 0.0, 0.0], 2.0, False),
        (1e-3, [0.0, 0.0, 0.0, 0.0], 0.0, True),
        (1e-3, [0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 2.0], False),
    ],
)
def test_an_epsilon_above_every_variance_is_no_measure_of_the_activations(epsilon, var, bias, folds):
    model = forked(0.0, 0.0)
    for held in model.graph.initializer:
        for name, values in (("bn_var", var), ("bn_bias", np.broadcast_to(bias, 4))):
            if held.name == name:
                held.CopyFrom(onnx.numpy_helper.from_array(np.array(values, "f4"), name))
    (norm,) = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_offset_without_other_consumers_may_be_of_any_size():
    _, (plan,) = fold_proto(forked(6400.0, 0.0, shared=False))
    assert plan.folds


@pytest.mark.parametrize("mean", [20.0, 1.0])
def test_an_offset_is_measured_by_the_activations_of_its_channel(mean):
    """The largest offset may be no larger than the activations of its own channel."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4, 1, 1)}
    offset, means = np.array([18, 0.5, 1, 1.5], "f4"), np.array([mean, 1, 1, 1], "f4")
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), 2.0 * (offset + means)
    held["bn_mean"], held["bn_var"] = means, np.full(4, 1.0 - 1e-5, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        s = Sigmoid (b)
        t = Conv (c, v)
        u = Sigmoid (t)
        y = Mul (s, u)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if mean > 1 else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_unused_output_of_unknown_size_needs_no_undoing():
    """A huge offset on both outputs of a Split along an axis of unknown size, one of them unused."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_scale"], held["bn_bias"] = np.full(4, 2.0, "f4"), np.full(4, 128000.0, "f4")
    held["bn_mean"], held["bn_var"] = np.zeros(4, "f4"), np.full(4, 1.0 - 1e-5, "f4")
    graph = """(float[1, 3, H, 4] x) => (float[] y) {
        c = Conv (x, w)
        one, other = Split <axis = 2> (c)
        b = BatchNormalization (one, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held, opset=13)
    _, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes


@pytest.mark.parametrize(
    ("gain", "offset", "folds"),
    [(0.01, 0.1, False), (0.01, 0.001, True), (1.0, 0.1, True), (100.0, 10.0, True), (1.0, 10.0, False)],
)
def test_an_offset_without_statistics_is_measured_by_the_weights_before_it(gain, offset, folds):
    held = {"w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4, 1, 1)}
    held |= {"g": np.full((4, 1, 1), gain, "f4"), "h": np.full((4, 1, 1), offset, "f4")}
    held["g"][0] *= 2  # not the same scale for all channels
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        p = Mul (c, g)
        b = Add (p, h)
        s = Sigmoid (b)
        t = Conv (c, v)
        u = Sigmoid (t)
        y = Mul (s, u)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "conditioning"]
    assert_equivalent(model, folded, 64.0)


def test_an_unused_output_needs_no_undoing():
    """An offset of any size may go to an output that is unused."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1)}
    held |= {"bn_scale": np.ones(2, "f4"), "bn_bias": np.full(2, 200.0, "f4"), "bn_mean": np.zeros(2, "f4")}
    held["bn_var"] = np.ones(2, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
        c = Conv (x, w)
        p, q = Split <axis = 1> (c)
        b = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    "between", [[node("Identity", ["t"], ["u"])], [node("Transpose", ["t"], ["u"], perm=[0, 1, 3, 2])]]
)
def test_conditioning_is_checked_behind_other_operators(between):
    held = {
        **STATISTICS,
        "s": np.full(4, 1e-6, "f4"),
        "b": np.ones(4, "f4"),
        "m": np.zeros(4, "f4"),
        "v": np.ones(4, "f4"),
    }
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="c"),
        *between,
        bn("u"),
        node("Conv", ["t", "w2"], ["q"], name="c2"),
    ]
    outputs = [ANY, helper.make_tensor_value_info("q", 1, None)]
    model = make(
        nodes, [tensor("x", [2, 3, 8, 8])], outputs, {"w": normal(4, 3, 1, 1), "w2": normal(4, 4, 1, 1), **held}
    )
    assert fold_and_compare(model) == 0
