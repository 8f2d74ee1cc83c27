"""Resize and Upsample."""

import numpy as np
import pytest

from tests.builders import batch_norm, between_factors, bn, bn_node, conv_then, make, node, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto, reasons
from tests.rules.cases.resize import CASES, ROWS
from tests.rules.operator_tests import OperatorTests

CHANNELS, HEIGHT = (1, 4, 1, 1), (1, 1, 4, 1)


class TestResize(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(
    ("how", "shape", "folds"),
    [
        ({"scales": [1, 1, 2, 2]}, CHANNELS, True),
        ({"scales": [1, 1, 2, 2]}, HEIGHT, False),
        ({"scales": [1, 1, 1, 2]}, HEIGHT, True),
        ({"sizes": [1, 4, 8, 8]}, CHANNELS, True),
        ({"sizes": [1, 4, 8, 8]}, HEIGHT, False),
        ({"sizes": [1, 4, 4, 8]}, HEIGHT, True),
        ({"sizes": [1, 8, 8, 8]}, CHANNELS, False),
        ({"scales": [2, 2], "axes": [2, 3]}, CHANNELS, True),
        ({"scales": [2, 2], "axes": [2, 3]}, HEIGHT, False),
        ({"scales": [2, 1], "axes": [3, 2]}, HEIGHT, True),
    ],
)  # fmt: skip
def test_a_resize_passes_what_does_not_vary_along_resized_axes(how, shape, folds):
    """A factor in front of it folds into the layer behind it, or is kept."""
    held = {"w": weights(1, 4, 3, 1, 1), "k": np.array([0.5, -1.5, 2.0, 0.25], "f4").reshape(shape)}
    for name in ("scales", "sizes"):
        if name in how:
            held[name] = np.array(how[name], "f4" if name == "scales" else "i8")
    options = {"axes": how["axes"]} if "axes" in how else {}
    inputs = ["c", "", "scales"] if "scales" in how else ["c", "", "", "sizes"]
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Resize", inputs, ["r"], mode="nearest", **options),
        node("Mul", ["r", "k2"], ["m"]),
        node("Sigmoid", ["m"], ["y"]),
    ]
    after = list(shape)
    axis = int(np.argmax(shape))
    full = {"scales": lambda: dict(zip(how.get("axes", range(4)), how["scales"], strict=True)).get(axis, 1) * 4}
    after[axis] = int(full["scales"]()) if "scales" in how else how["sizes"][axis]
    held["k2"] = np.resize(held.pop("k").reshape(-1), after[axis]).reshape(after)
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=18)
    folded, (plan,) = fold_proto(model)
    into_conv = any(n.name == "conv" for fold in plan.folds for n in fold.into)
    assert into_conv is (folds and shape == CHANNELS)
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(("op", "opset"), [("Resize", 10), ("Upsample", 9)])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 2, 1, 1]])
def test_the_scales_input_of_older_resizes(op, opset, scales):
    held = {**batch_norm("bn", 4 * scales[1], 1), "w": weights(1, 4, 3, 1, 1), "scales": np.array(scales, "f4")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node(op, ["c", "scales"], ["d"], mode="nearest"),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=opset)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (scales[1] == 1)
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("scales", "passes"), [([1, 1, 1, 1], True), ([1, 1, 1.1, 1], False), ([1, 1.1, 1, 1], False)])
def test_a_resize_that_keeps_the_size_may_still_move_pixels(mode, scales, passes):
    """4 times 1.1 is 4 again: a transform that varies along that axis does not pass."""
    middle = [node("Resize", ["c", "", "r"], ["d"], mode=mode)]
    held = {"r": np.array(scales, "f4")}
    model = between_factors(middle, held, [2, 4, 4, 3], [2, 4, 4, 3], weights(2, 4, 4, 1) + 2)
    folded, (plan,) = fold_proto(model)
    assert_equivalent(model, folded, 512.0)
    assert ("folds" in reasons(plan)) is passes, plan.outcomes
    assert passes or "channel-axis" in reasons(plan)


def test_a_resize_along_the_channels_is_kept():
    resize = node("Resize", ["t", "", "scales"], ["z"], axes=[1, 2], mode="linear")
    model = conv_then(resize, bn("z"), scales=np.array([1.2, 2], "f4"))
    model.opset_import[0].version = 18
    assert fold_and_compare(model) == 0
    resize = node("Resize", ["t", "", "scales"], ["z"], axes=[2, 3], mode="linear")
    model = conv_then(resize, bn("z"), scales=np.array([1.2, 2], "f4"))
    model.opset_import[0].version = 18
    assert fold_and_compare(model) == 1
