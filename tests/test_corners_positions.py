"""Corners of what works on positions: slices, borders, windows, resizes, and maps that vary along several axes."""

from types import SimpleNamespace

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load_bytes
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.layout import MOST_ENTRIES, PRIMES, Unmovable, reshaped
from bnfold.rules.table import lookup


def between_factors(middle, held, shape, behind, factor):
    """A factor for each entry, the nodes in question, and another factor, which might go into the first."""
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "k"], ["c"]),
        *middle,
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    parts = {"k": weights(1, *shape) + 2, "j": factor, **held}
    model = make(nodes, [tensor("x", shape)], [tensor("y", behind)], parts)
    folded, (plan,) = fold_proto(model)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
    return plan


@pytest.mark.parametrize(
    ("axes", "steps", "folds"), [([1, 2], [1, -1], 0), ([1, 2], [-1, 1], 0), ([2], [-1], 1), ([1], [-1], 1)]
)
def test_a_slice_along_two_axes_of_a_map_is_too_much(axes, steps, folds):
    """It would have to be cut along both; a step of -1 turns the entries round without changing the shape."""
    held = {"from": np.array([0 if s > 0 else -1 for s in steps]), "to": np.array([9 if s > 0 else -9 for s in steps])}
    held |= {"along": np.array(axes), "by": np.array(steps)}
    plan = between_factors(
        [node("Slice", ["c", "from", "to", "along", "by"], ["d"])],
        held,
        [2, 4, 4, 3],
        [2, 4, 4, 3],
        weights(2, 4, 4, 1) + 2,
    )
    told = [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]
    assert told.count("folds") == folds


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("scales", "passes"), [([1, 1, 1, 1], True), ([1, 1, 1.1, 1], False), ([1, 1.1, 1, 1], False)])
def test_a_resize_that_keeps_the_size_may_still_move_entries(mode, scales, passes):
    """4 times 1.1 is 4 again; a map along that axis does not pass, whichever axes it varies along besides."""
    middle = [node("Resize", ["c", "", "r"], ["d"], mode=mode)]
    held = {"r": np.array(scales, "f4")}
    plan = between_factors(middle, held, [2, 4, 4, 3], [2, 4, 4, 3], weights(2, 4, 4, 1) + 2)
    reasons = {getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes}
    assert ("folds" in reasons) is passes, plan.outcomes
    assert passes or "channel-axis" in reasons


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_becomes_space_for_each_sample(mode):
    """Channels that become one are alike, but each sample has its own."""
    j, few = weights(3, 2, 2, 1, 1) + 2, weights(4, 2, 2, 1, 1) + 2
    k = np.concatenate([few] * 4, axis=1) if mode == "DCR" else np.repeat(few, 4, axis=1)
    nodes = [
        node("Mul", ["x", "k"], ["c"]),
        node("DepthToSpace", ["c"], ["d"], blocksize=2, mode=mode),
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 8, 3, 3])], [tensor("y", [2, 2, 6, 6])], {"k": k, "j": j})
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_what_is_repeated_has_one_map():
    """A value that becomes two can't take two factors; nor can one with a new axis in front."""
    for target in ([2, 4, 3], [2, 2, 4, 3]):
        held = {"w": weights(1, 6, 3), "n": np.array(target), "j": weights(2, 2, 1, 1) + 2}
        shape = [4, 6]
        nodes = [
            node("MatMul", ["x", "w"], ["c"]),
            node("Expand", ["c", "n"], ["d"]),
            node("Mul", ["d", "j"], ["e"]),
            node("Sigmoid", ["e"], ["y"]),
        ]
        model = make(nodes, [tensor("x", shape)], [tensor("y", target)], held)
        folded, (plan,) = fold_proto(model)
        assert plan.folds == []
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("shape", [[1, 3, "H", "W"], [1, 3, 8, 8], None])
@pytest.mark.parametrize("dilations", [[1, 1], [2, 2], [1, 2], None])
def test_a_window_without_gaps_sees_its_input_whatever_its_size(shape, dilations):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1), "n": np.array([0, 0, 0, 0])}
    for part, value in (("scale", 2.0), ("bias", 0.5), ("mean", 0.0), ("var", 1.0)):
        held[f"bn_{part}"] = np.full(3, value, "f4")
    attributes = {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], **({"dilations": dilations} if dilations else {})}
    inputs = [tensor("x", shape or [1, 3, 8, 8])]
    middle = [node("Conv", ["x", "w"], ["c"])]
    if shape is None:
        inputs.append(tensor("to", ["n"], 7))
        middle.append(node("Reshape", ["c", "to"], ["r"]))
    nodes = [
        *middle,
        node("MaxPool", ["r" if shape is None else "c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    gaps = dilations is not None and max(dilations) > 1
    assert bool(plan.folds) is (not gaps or shape == [1, 3, 8, 8]), plan.outcomes
    if gaps and not plan.folds:
        assert [outcome.reason for _, outcome in plan.outcomes] == ["padding"]
    feeds = {"x": weights(5, 1, 3, 8, 8), **({"to": np.array([1, 3, 8, 8])} if shape is None else {})}
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_window_with_gaps_of_two_may_miss_one_entry():
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    pool = node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1])
    nodes = [node("Conv", ["x", "w"], ["c"]), pool, bn_node("p", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 1, 1])], [tensor("y", None)], held, opset=19, ir_version=9)
    _, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["padding"]


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (4,)), ((4,), (2, 3)), (("N", 4), ("N", 5)), ((0, 3), (2, 3)), ((2, 3), (0, 3)), ((2, None), (0, None))],
)
def test_shapes_that_can_t_be_of_one_value(before, after):
    for one, other in ((before, after), (after, before)):
        with pytest.raises(Unmovable):
            reshaped(np.ones((1,) * len(one)), one, other)


def test_the_numbers_for_unknown_dimensions_are_primes():
    """And larger than the products of real sizes that a map is spread over."""
    assert len(set(PRIMES)) == len(PRIMES)
    for prime in PRIMES:
        assert prime > MOST_ENTRIES
        assert all(prime % divisor for divisor in range(2, int(prime**0.5) + 1))


def test_two_unknown_dimensions_are_told():
    with pytest.raises(Unmovable, match="several"):
        reshaped(np.ones((1, 1, 1)), (None, None, 4), (8, 4))


@pytest.mark.parametrize(("gauge", "folds"), [(IDENTITY, False), (Affine.along(1, [2.0, 4.0], [1.0, 0.0]), True)])
def test_a_border_is_judged_as_earlier_folds_left_it(gauge, folds):
    """What they made of the value stands before the map that is asked for now: together they keep one number."""
    held = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.array(0.5, "f4")}
    model = make([node("Pad", ["x", "pads", "v"], ["y"])], [tensor("x", [1, 2, 4, 4])], [tensor("y", None)], held)
    (scope,) = OnnxGraphs(load_bytes(model.SerializeToString()).proto).scopes
    (pad,) = scope.nodes
    then = Affine.along(1, [1.0, 2.0], [0.0, -2.0])  # takes 2 to one number, and 0.5 to two
    flood = SimpleNamespace(
        proposed=lambda value: then if value is pad.inputs[0] else None,
        current=lambda value: gauge if value is pad.inputs[0] else IDENTITY,
    )
    ways = lookup("Pad").propagate(pad, flood)
    assert isinstance(ways, list) is folds


def test_a_constant_joins_channels_of_any_number():
    """A factor for each row passes; how many channels there are need not be known."""
    held = {"k": weights(1, 1, 1, 4, 1) + 2, "j": weights(2, 1, 1, 4, 1) + 2, "q": weights(3, 1, 2, 4, 3)}
    nodes = [
        node("Mul", ["x", "k"], ["c"]),
        node("Concat", ["c", "q"], ["d"], axis=1),
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, "C", 4, 3])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert {n.op for n in plan.folds[0].into} == {"Mul", "Concat"}, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_slice_of_no_axis_passes_everything():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "none": np.array([], "i8")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Slice", ["c", "none", "none"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_what_is_repeated_as_the_caller_says_takes_no_map_per_channel():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Expand", ["c", "to"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4]), tensor("to", ["n"], 7)], [tensor("y", None)], held)
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert (kept.reason, "rank" in kept.detail) == ("unknown-shape", True)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_a_map_does_not_pass_what_it_varies_along(op):
    """Though behind it there are as many channels again."""
    held = {"k": np.array([2.0, 3.0, 5.0], "f4").reshape(1, 3, 1, 1), "w": weights(1, 4, 3, 1, 1), "b": weights(2, 4)}
    held |= {"to": np.array([1, 3, 4, 4]), "axes": np.array([1])}
    nodes = [
        node("Mul", ["x", "k"], ["m"]),
        node(op, ["m", "axes"], ["r"], keepdims=1),
        node("Expand", ["r", "to"], ["t"]),
        node("Conv", ["t", "w", "b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=18)
    folded, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["channel-axis"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("gain", [2.0, [2.0, 3.0]])
def test_a_part_can_t_carry_a_map_that_the_whole_does_not(gain):
    """What the whole carries is known here to be nothing, from another reader, before its parts are asked."""
    held = {"k": np.ones((1, 2, 1, 1), "f4") * np.reshape(np.array(gain, "f4"), (1, -1, 1, 1))}
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1),
        node("Concat", ["b", "x", "x"], ["unread"], axis=1),
        node("Mul", ["b", "k"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 3, 3])], [tensor("y", [2, 2, 3, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax"])
def test_over_axes_that_the_caller_names_nothing_is_known(op):
    """How many entries are added depends on them."""
    held = {"w": weights(1, 4, 3, 1, 1), "b": weights(2, 4), "two": np.array(2.0, "f4"), "one": np.array(1.0, "f4")}
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node(op, ["c", "axes"], ["r"], keepdims=1),
        node("Mul", ["r", "two"], ["m"]),
        node("Add", ["m", "one"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("axes", [1], 7)]
    model = make(nodes, inputs, [tensor("y", None)], held, opset=18)
    folded, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["unknown-shape"]
    for axis in (1, 3):
        feeds = {"x": weights(3, 1, 3, 4, 4), "axes": np.array([axis])}
        assert_same(run(model, feeds), run(folded, feeds), 512.0)
