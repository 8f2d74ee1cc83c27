"""Corners of shapes: ranks and sizes that are unknown or wrong. Written for mutants that survived."""

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run

from bnfold.rules.layout import Unmovable, reshaped

UNKNOWN = {
    "Transpose": node("Transpose", ["r"], ["d"]),
    "Transpose of two": node("Transpose", ["r"], ["d"], perm=[1, 0]),
    "Flatten": node("Flatten", ["r"], ["d"]),
    "Reshape": node("Reshape", ["r", "two"], ["d"]),
    "Squeeze": node("Squeeze", ["r"], ["d"]),
    "Expand": node("Expand", ["r", "two"], ["d"]),
    "Gather": node("Gather", ["r", "one"], ["d"]),
    "Slice": node("Slice", ["r", "one", "three"], ["d"]),
    "Concat": node("Concat", ["r", "r"], ["d"], axis=0),
    "Split": node("Split", ["r"], ["d", "e"], axis=1),
    "ReduceMean": node("ReduceMean", ["r"], ["d"], axes=[1]),
    "ReduceSum": node("ReduceSum", ["r", "one"], ["d"]),
    "ReduceMax": node("ReduceMax", ["r"], ["d"]),
    "Pad": node("Pad", ["r", "pads"], ["d"]),
    "Resize": node("Resize", ["r", "", "scales"], ["d"], mode="nearest"),
    "Add": node("Add", ["r", "r"], ["d"]),
    "Mul": node("Mul", ["r", "k"], ["d"]),
    "MatMul": node("MatMul", ["r", "w2"], ["d"]),
    "Relu": node("Relu", ["r"], ["d"]),
    "Softmax": node("Softmax", ["r"], ["d"]),
}
STAY = {"Concat", "MatMul", "ReduceMax", "ReduceMean", "ReduceSum", "Slice", "Softmax", "Split"}


@pytest.mark.parametrize("between", UNKNOWN)
def test_what_a_value_of_unknown_rank_carries(between):
    """One number for all passes what does not care where entries are; the rest says that the rank is unknown."""
    held = {"w": weights(1, 4, 3, 1, 1), "w2": weights(2, 16, 5), "k": np.array(0.5, "f4"), "m": np.array(2.0, "f4")}
    held |= {"one": np.array([1], "i8"), "two": np.array([8, 8], "i8"), "pads": np.array([0, 1, 0, 1], "i8")}
    held |= {"three": np.array([3], "i8")}
    held["scales"] = np.array([1, 2], "f4")
    if between == "Expand":
        held["two"] = np.array([4, 16], "i8")
    held = {name: data for name, data in held.items() if name in {"w", "m", *UNKNOWN[between].input}}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Reshape", ["c", "shape"], ["r"]),
        UNKNOWN[between],
        node("Mul", ["d", "m"], ["e2"]),
        node("Sigmoid", ["e2"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("shape", [None], 7)]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    feeds = {**feeds_for(model), "shape": np.array([4, 16], "i8")}
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
    assert bool(plan.folds) is (between not in STAY)
    if between in STAY:
        assert {outcome.reason for _, outcome in plan.outcomes} <= {"unknown-shape", "dynamic-weights", "nonlinear"}


@pytest.mark.parametrize(
    ("before", "after", "array", "expected"),
    [
        ((2, 3, 4), (2, 12), (1, 3, 1), (1, 12)),
        ((2, 3, 4), (6, 4), (1, 3, 1), (6, 1)),
        ((2, 3, 4), (6, 4), (1, 1, 4), (1, 4)),
        ((2, 3, 4), (2, 3, 2, 2), (1, 3, 1), (1, 3, 1, 1)),
        ((2, 3, 1, 4), (2, 3, 4), (1, 3, 1, 1), (1, 3, 1)),
        ((2, 3), (2, 3, 1, 1), (1, 3), (1, 3, 1, 1)),
        ((2, 3, 1, 1), (2, 3), (1, 3, 1, 1), (1, 3)),
        ((None, 6), (None, None, 6), (1, 6), (1, 1, 6)),
        ((None, None, 6), (None, 6), (1, 1, 6), (1, 6)),
        ((None, 6), (None, 2, 3), (1, 6), (1, 2, 3)),
        (("N", 6), ("N", 2, 3), (1, 6), (1, 2, 3)),
        (("N", 4, "H"), ("N", 2, 2, "H"), (1, 4, 1), (1, 2, 2, 1)),
        (("N", "C", 4), ("C", "N", 4), (1, 1, 4), (1, 1, 4)),
        ((None, 4, None), (None, 4), (1, 4, 1), None),  # in which of its places is the 4?
        ((None, 3), (None, 4), (1, 3), None),
        (("N", 3), ("N", 4), (1, 3), None),
        ((2, 3), (2, 4), (1, 3), None),
        ((0, 3), (0, 4), (1, 3), None),
        ((5, 3), (None, None, 3), (1, 3), None),
        ((2**12, 2**12), (2**24,), (2**12, 1), None),
        ((2**11, 2**11), (2**22,), (2**11, 1), (2**22,)),
        (tuple("abcdefghi"), (None,), (1,) * 9, None),
        ((None,), tuple("abcdefghi"), (1,), None),
    ],
)
def test_an_array_over_one_shape_seen_over_another(before, after, array, expected):
    """As numpy reshapes what is spread out; what is not known for sure is refused."""
    known = (*before, *after)
    values = np.arange(np.prod(array), dtype="f8").reshape(array)
    if expected is None:
        with pytest.raises(Unmovable):
            reshaped(values, before, after)
        return
    made = reshaped(values, before, after)
    assert made.shape == expected
    if all(isinstance(dim, int) for dim in known):
        full = np.broadcast_to(values, before).reshape(after)
        np.testing.assert_array_equal(np.broadcast_to(made, after), full)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("part", ["scale", "bias", "mean", "var"])
def test_parameters_of_another_number_than_the_channels_are_no_map(channels, part):
    """All four, and the input, must have as many."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held[f"bn_{part}"] = np.full(channels, 0.5, "f4")
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    told = [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]
    assert told == ["folds" if channels == 4 else "channel-axis"]


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_a_batch_norm_of_another_width_than_its_input(channels):
    held = {**batch_norm("bn", channels, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    assert [outcome.reason for _, outcome in plan.outcomes] == ["channel-axis"]


@pytest.mark.parametrize("op", ["MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize(("lowest", "folds"), [(0.0, True), (0.5, True), (-0.5, False)])
def test_a_maximum_passes_gains_of_zero(op, lowest, folds):
    attributes = {"kernel_shape": [2, 2]} if op == "MaxPool" else {"axes": [2, 3]} if op.startswith("Reduce") else {}
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_scale"] = np.array([1.0, 2.0, lowest, 0.5], "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node(op, ["c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("mode", ["", "NOTSET", "VALID", "SAME_UPPER"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_an_empty_auto_pad_is_none(mode, pads):
    """As onnxruntime reads it; then the pads count."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Conv", ["b", "w"], ["c"], auto_pad=mode, **({} if mode in ("VALID", "SAME_UPPER") else {"pads": pads})),
        node("Sigmoid", ["c"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (mode in ("VALID", "SAME_UPPER") or not any(pads))
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "dilation", "pad"), [(2, 3, 1), (4, 5, 1), (3, 3, 1), (2, 2, 1), (2, 3, 0), (8, 3, 1)]
)
def test_a_window_with_gaps_may_miss_its_input(op, size, dilation, pad):
    """What it makes then is no maximum and no mean of anything, and follows no map."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 3, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    attributes = {"kernel_shape": [2, 2], "dilations": [dilation] * 2, "pads": [pad] * 4}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node(op, ["c"], ["p"], **attributes),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, size, size])], [tensor("y", None)], held, opset=19, ir_version=9)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (size >= dilation or pad == 0), plan.outcomes
    if size + 2 * pad > dilation:
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("gains", [[0.5, 1.0, 2.0, 4.0], [4.0, 2.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize(("behind", "mode"), [(False, "DCR"), (False, "CRD"), (True, None)])
def test_channels_that_become_one_need_one_map(gains, mode, behind):
    """Whichever of them is the larger."""
    op = "SpaceToDepth" if behind else "DepthToSpace"
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 1 if behind else 4, 3, 1, 1), "v": weights(2, 2, 1, 1, 1)}
    held["bn_scale"], held["bn_var"] = np.array(gains, "f4"), np.ones(4, "f4")
    held["bn_mean"] = held["bn_bias"] = np.zeros(4, "f4")
    moved = node(op, ["c" if behind else "b"], ["d"], blocksize=2, **({} if behind else {"mode": mode}))
    middle = (
        [node("Conv", ["x", "w"], ["c"]), moved, bn_node("d", "e", "bn")]
        if behind
        else [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["s"]), bn_node("s", "b", "bn"), moved,
              node("Conv", ["d", "v"], ["e"])]
    )  # fmt: skip
    nodes = [*middle, node("Sigmoid", ["e"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (len(set(gains)) == 1), plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
