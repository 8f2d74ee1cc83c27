"""Corners of the rules that changed code could have got wrong unnoticed: written for mutants that survived."""

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run


def test_a_negative_gain_does_not_enter_a_prelu_of_slope_zero():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"], held["bn_var"] = np.array([1.0, -1.0, 0.5, 2.0], "f4"), np.full(4, 4.0, "f4")
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


@pytest.mark.parametrize(("variance", "folds"), [(0.0, True), (-5e-6, True), (-1.0, False)])
def test_what_counts_is_the_variance_with_its_epsilon(variance, folds):
    model = chain(node("Identity", ["c"], ["d"]), held={"bn_var": np.array([variance, 1.0, 1.0, 1.0], "f4")})
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    if folds:
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


def padded(size, kernel, stride, dilation):
    """How much a convolution pads where the output is as large as the stride makes it."""
    return max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [5, 6, 7, None])
def test_a_shift_enters_a_layer_that_pads_by_itself_where_nothing_is_padded(kernel, stride, dilation, size):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, kernel)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Conv", ["b", "w"], ["y"], auto_pad="SAME_UPPER", strides=[stride], dilations=[dilation]),
    ]
    shape = [1, 3, "L" if size is None else size]
    model = make(nodes, [tensor("x", shape)], [tensor("y", [1, 4, None])], held)
    folded, (plan,) = fold_proto(model)
    free = kernel == 1 if size is None else padded(size, kernel, stride, dilation) == 0
    assert bool(plan.folds) is free
    if dilation == 1:  # onnxruntime refuses dilations together with auto_pad
        feeds = feeds_for(model, free=7)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-1.0, -2.0, -0.5, -3.0], [1.0, -1.0, 0.0, -2.0]])
@pytest.mark.parametrize("slope", [0.0, 0.2, -0.3, 1.0, -1.0])
@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize("behind", [False, True])
def test_a_prelu_passes_what_it_can(gains, slope, shift, behind):
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
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 2048.0)


CHANNELS, HEIGHT = (1, 4, 1, 1), (1, 1, 4, 1)


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
def test_a_resize_carries_what_does_not_vary_where_it_resizes(how, shape, folds):
    """A factor and a term in front of it move behind it, into the layer there, or stay."""
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
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("opset", [14, 15, 17, 20])
def test_training_mode_is_seen_in_every_opset(opset):
    model = chain(node("Identity", ["c"], ["d"]))
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", opset)])
    next(n for n in model.graph.node if n.op_type == "BatchNormalization").attribute.append(
        onnx.helper.make_attribute("training_mode", 1)
    )
    _, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["training-mode"]


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes", "folds"),
    [
        (12, ["c", "", "no"], {}, True),
        (12, ["c", "", "yes"], {}, False),
        (12, ["c"], {}, True),
        (13, ["c", "ratio", "yes"], {}, False),
        (13, ["c", "ratio"], {}, True),
        (10, ["c"], {"ratio": 0.5}, True),
    ],
)
def test_a_dropout_is_passed_unless_it_drops(opset, inputs, attributes, folds):
    held = {"no": np.array(False), "yes": np.array(True), "ratio": np.array(0.5, "f4")}
    model = chain(node("Dropout", inputs, ["d"], **attributes), held={k: v for k, v in held.items() if k in inputs})
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", opset)])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    if folds:
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)
