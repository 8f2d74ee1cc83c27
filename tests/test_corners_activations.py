"""Corners of activations: what passes a PRelu, a Clip, a Dropout."""

import numpy as np
import pytest
from build import bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_corners import chain
from test_corners_layers import exactly


@pytest.mark.parametrize("slope", [0.0, -0.5, 0.25])
@pytest.mark.parametrize("gain", [-0.5, -2.0])
@pytest.mark.parametrize("behind", [False, True])
def test_a_negative_gain_and_the_slope_of_a_prelu(slope, gain, behind):
    """Only a slope that is not zero can be inverted; behind it, only a positive one."""
    held, _ = exactly(gain, 0.0)
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
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("read", [False, True])
def test_a_dropout_whose_mask_is_an_output_stays_as_it_is(read):
    model = chain(node("Dropout", ["c"], ["d", *(["mask"] if read else [])]))
    if read:
        model.graph.output.append(tensor("mask", [1, 4, 4, 4], 9))
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is not read


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize(
    ("low", "high", "shift"), [(0.0, 0.6, 0.0), (0.2, 1.0, -1.0), (None, 0.6, 0.0), (0.2, None, 0.0), (0.0, 0.6, 1.0)]
)
def test_both_bounds_of_a_clip_move_where_one_does(opset, low, high, shift):
    """Of 0 and 0.6 a factor moves only the second; what maps 1 to 1 moves only the first."""
    held, norm = exactly(2.0, shift)
    held |= {"w": weights(1, 3, 4, 1, 1)}
    bounds = {name: np.array(bound, "f4") for name, bound in (("low", low), ("high", high)) if bound is not None}
    if opset < 11:
        clip = node("Clip", ["s"], ["c"], **{{"low": "min", "high": "max"}[k]: float(v) for k, v in bounds.items()})
    else:
        held |= bounds
        clip = node("Clip", ["s", *(name if name in bounds else "" for name in ("low", "high"))], ["c"])
    norm.input[0] = "c"
    nodes = [node("Conv", ["x", "v"], ["s"]), clip, norm, node("Sigmoid", ["b"], ["y"])]
    held["v"] = weights(2, 4, 3, 1, 1)
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held, opset=opset)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("low", [0.0, -np.inf])
def test_a_gain_of_zero_does_not_pass_a_clip(low):
    """It would leave nothing that could be undone, and an infinite bound without a number."""
    held, norm = exactly(0.0, 2.0)
    held |= {"v": weights(2, 4, 3, 1, 1), "low": np.array(low, "f4"), "high": np.array(6.0, "f4")}
    norm.input[0] = "c"
    nodes = [node("Conv", ["x", "v"], ["s"]), node("Clip", ["s", "low", "high"], ["c"]), norm]
    model = make([*nodes, node("Sigmoid", ["b"], ["y"])], [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "nonlinear"
    assert folded == model


@pytest.mark.parametrize(("gain", "shift", "says"), [(1.0, 1.0, "a shift does"), (-1.0, 0.0, "not positive does")])
def test_why_a_map_does_not_pass_a_relu(gain, shift, says):
    held, norm = exactly(gain, shift)
    held |= {"w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), norm, node("Relu", ["b"], ["r"]), node("Conv", ["r", "w"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", None)], held))
    ((_, kept),) = plan.outcomes
    assert says in kept.detail
