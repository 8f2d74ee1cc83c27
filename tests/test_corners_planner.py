"""Corners of the planner and of what it leaves behind: written for mutants that survived."""

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_corners import chain
from test_corners_old import of_opset


def test_a_part_carries_a_map_that_the_rest_does_not():
    """What is cut out takes a map that is the same for all its channels into its part of the layer in front."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 4), "s": np.array([0], "i8")}
    held |= {"e": np.array([2], "i8"), "z": np.array([4], "i8"), "a": np.array([1], "i8")}
    for part, value in (("scale", 2.0), ("bias", 0.5), ("mean", -1.0), ("var", 1.5)):
        held[f"bn_{part}"] = np.full(2, value, "f4")
    nodes = [
        node("Conv", ["x", "w", "k"], ["c"]),
        node("Slice", ["c", "s", "e", "a"], ["p"]),
        node("Slice", ["c", "e", "z", "a"], ["q"]),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["t"]),
        node("Sigmoid", ["q"], ["u"]),
        node("Concat", ["t", "u"], ["y"], axis=1),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(("k", "folds"), [(np.float32(2.0), True), (np.full(1, 2.0, "f4"), False)])
def test_of_a_value_of_unknown_rank_only_a_single_number_is_a_map(k, folds):
    """A vector of one entry might give it an axis."""
    held = {"w": weights(1, 4, 3, 1, 1), "k": k}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Reshape", ["c", "shape"], ["r"]),
        node("Mul", ["r", "k"], ["m"]),
        node("Sigmoid", ["m"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("shape", [None], 7)]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    feeds = {**feeds_for(model), "shape": np.array([4, 16], "i8")}
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_weights_of_a_recurrent_layer_that_are_computed_stay():
    held = {**batch_norm("bn", 5, 1), "r": weights(1, 1, 5, 5)}
    nodes = [
        node("Sigmoid", ["v"], ["s"]),
        bn_node("s", "w", "bn"),
        node("RNN", ["x", "w", "r"], ["", "y"], hidden_size=5),
    ]
    model = make(nodes, [tensor("x", [3, 2, 6]), tensor("v", [1, 5, 6])], [tensor("y", None)], held)
    _, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["nonlinear"]


@pytest.mark.parametrize("lowest", [2.0**-14, 2.0**-15])
def test_the_smallest_normal_number_is_still_stored_whole(lowest):
    """A channel whose largest weight would lie below it loses bits."""
    held = {**batch_norm("bn", 4, 1, "float16"), "w": np.full((4, 3, 1, 1), 2.0**-10, "f2")}
    held["bn_scale"], held["bn_var"] = np.full(4, lowest * 2.0**10, "f2"), np.ones(4, "f2")
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn", epsilon=0.0), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4], 10)], [tensor("y", [1, 4, 4, 4], 10)], held)
    _, (plan,) = fold_proto(model)
    told = [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]
    assert told == ["folds" if lowest == 2.0**-14 else "overflow"]


@pytest.mark.parametrize("opset", [6, 7, 8, 17])
def test_a_shift_that_a_product_leaves_behind_becomes_an_add(opset):
    """From opset 7 on, whose Add broadcasts."""
    held = {**batch_norm("bn", 5, 1), "k": weights(1, 4, 5)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("MatMul", ["s", "k"], ["m"]),
        bn_node("m", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = of_opset(make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 5])], held), opset)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (opset >= 7), plan.outcomes
    assert [n.op_type for n in folded.graph.node][2] == ("Add" if plan.folds else "BatchNormalization")
    if plan.folds:
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_bias_is_one_number_per_channel_or_the_model_is_wrong(size):
    model = chain(node("Conv", ["c", "v", "k"], ["d"]), held={"v": weights(2, 4, 4, 1, 1), "k": weights(3, size)})
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (size == 4)


@pytest.mark.parametrize("shift", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_layer_that_takes_a_gain_or_a_shift_alone(gain, shift):
    """Its weight changes with the gain, its bias with the shift, and what does not change keeps its bytes."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 4)}
    held["bn_scale"], held["bn_bias"] = np.full(3, gain, "f4"), np.full(3, shift, "f4")
    held["bn_mean"], held["bn_var"] = np.zeros(3, "f4"), np.full(3, 1.0, "f4")
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn", epsilon=0.0),
        node("Conv", ["b", "w", "k"], ["c"]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    stored = {t.name: t.raw_data for t in folded.graph.initializer}
    before = {t.name: t.raw_data for t in model.graph.initializer}
    (layer,) = (n for n in folded.graph.node if n.op_type == "Conv")
    assert (stored[layer.input[1]] == before["w"]) is (gain == 1)
    assert (stored[layer.input[2]] == before["k"]) is (shift == 0)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("wide", ["in front", "behind"])
def test_the_way_that_changes_the_fewest_layers_is_taken(wide):
    """Two layers in front and one behind, or the other way round."""
    held = {**batch_norm("bn", 4, 1), **{name: weights(i, 2, 3, 1, 1) for i, name in enumerate(("k", "l"))}}
    held |= {"w": weights(3, 4, 3, 1, 1), "v": weights(4, 2, 4, 1, 1), "u": weights(5, 2, 4, 1, 1)}
    front = [
        node("Conv", ["x", "k"], ["p"]),
        node("Conv", ["x", "l"], ["q"]),
        node("Concat", ["p", "q"], ["c"], axis=1),
    ]
    one = [node("Conv", ["x", "w"], ["c"])]
    behind = [node("Conv", ["b", "v"], ["d"]), node("Sigmoid", ["d"], ["s"])]
    more = [node("Conv", ["b", "u"], ["e"]), node("Sigmoid", ["e"], ["t"]), node("Add", ["s", "t"], ["y"])]
    nodes = (
        [*front, bn_node("c", "b", "bn"), *behind]
        if wide == "in front"
        else [*one, bn_node("c", "b", "bn"), *behind, *more]
    )
    output = "s" if wide == "in front" else "y"
    used = {name: data for name, data in held.items() if any(name in n.input for n in nodes)}
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor(output, [1, 2, 4, 4])], used)
    folded, (plan,) = fold_proto(model)
    assert [(fold.direction, len(fold.into)) for fold in plan.folds] == [
        ("downstream" if wide == "in front" else "upstream", 1)
    ]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": ["first_bn"]}, ["folds", "skipped"]),
        ({"skip": ["first_bn"]}, ["skipped", "folds"]),
        ({"only": ["first_bn"], "skip": ["first_bn"]}, ["skipped", "skipped"]),
        ({"only": ["b"], "skip": ["second_bn"]}, ["folds", "skipped"]),
    ],
)
def test_what_is_asked_for_and_what_is_left_out(options, expected):
    held = {**batch_norm("first", 4, 1), **batch_norm("second", 4, 2), "w": weights(1, 4, 3, 1, 1)}
    held["v"] = weights(2, 4, 4, 1, 1)
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "b", "first"),
        node("Sigmoid", ["b"], ["s"]),
        node("Conv", ["s", "v"], ["d"]),
        bn_node("d", "e", "second"),
        node("Sigmoid", ["e"], ["y"]),
    ]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held), **options)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == expected


@pytest.mark.parametrize(("gain", "folds"), [(2.0, 2), (-2.0, 1)])
def test_what_passes_the_maximum_that_a_batch_norm_has_become(gain, folds):
    """A positive gain; a negative one would turn it into a minimum. (Zeros at the border keep shifts from the pool.)"""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "v": weights(2, 2, 4, 1, 1)}
    held["one_scale"], held["one_bias"] = np.full(4, gain, "f4"), np.zeros(4, "f4")
    held["one_mean"], held["two_scale"] = np.zeros(4, "f4"), np.array([0.5, 1.0, 2.0, 3.0], "f4")
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "one"),
        node("AveragePool", ["b"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        bn_node("p", "c", "two"),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", [1, 2, 4, 4])], held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert len(plan.folds) == folds, plan.outcomes
    assert sum(n.op_type == "Max" for n in folded.graph.node) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_what_a_product_left_behind_takes_what_comes_later(shift):
    """The Add that one BatchNorm leaves behind a product takes the shift of another in front of it."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 5, 2), "k": weights(1, 4, 5)}
    held["one_bias"] = held["one_mean"] = np.full(4, shift, "f4")
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "one"),
        node("MatMul", ["b", "k"], ["m"]),
        bn_node("m", "c", "two"),
        node("Sigmoid", ["c"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert [n.op_type for n in folded.graph.node] == ["Sigmoid", "MatMul", "Add", "Sigmoid"], plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_two_batch_norms_in_front_of_a_product():
    """The shift of the first goes through weights that hold the scale of the second already."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "k": weights(1, 4, 5), "a": weights(2, 5)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "one"),
        bn_node("b", "c", "two"),
        node("MatMul", ["c", "k"], ["m"]),
        node("Add", ["m", "a"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("opset", [7, 8, 13])
def test_a_batch_norm_becomes_a_maximum_where_that_broadcasts(opset):
    held = {**batch_norm("bn", 4, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "c", "bn"),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", [1, 2, 4, 4])], held, opset=opset)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert bool(plan.folds) is (opset >= 8)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
