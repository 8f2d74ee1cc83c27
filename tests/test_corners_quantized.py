"""Corners of the rule for integer weights: written for mutants that survived."""

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_corners import chain


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-1.0, -2.0, -0.5, -3.0], [1.0, -1.0, 2.0, -2.0]])
def test_integer_weights_take_gains_of_any_sign(gains):
    rng = np.random.default_rng(0)
    held = {"q": rng.integers(-100, 100, (4, 4, 1, 1)).astype("i1"), "s": np.array([0.01, 0.02, 0.03, 0.04], "f4")}
    nodes = [node("DequantizeLinear", ["q", "s"], ["v"], axis=0), node("Conv", ["c", "v"], ["d"])]
    model = chain(*nodes, held=held, gains=gains)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("zero", [None, 0, 3, 120])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [-2.0, -2.0, -2.0, -2.0], [1.0, -1.0, 2.0, -2.0]])
def test_integer_weights_are_flipped_about_their_zero_point(dtype, zero, per_channel, gains):
    """A negative gain flips the integers; those that would leave their type stay, and the BatchNorm with them."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(2)
    q = rng.integers(limits.min, limits.max, (4, 4, 1, 1), endpoint=True).astype(dtype)
    held = {"q": q, "s": (np.array([0.01, 0.02, 0.03, 0.04]) if per_channel else np.array(0.01)).astype("f4")}
    if zero is not None:
        held["z"] = np.full(4 if per_channel else (), zero, dtype)
    nodes = [
        node("DequantizeLinear", ["q", "s", *(["z"] if zero is not None else [])], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(node("Sigmoid", ["c"], ["t"]), *nodes, held=held, gains=gains)
    flipped = 2 * (zero or 0) - q.astype("i8")
    flips = np.array(gains) < 0
    fits = limits.min <= flipped[flips].min(initial=0) and flipped[flips].max(initial=0) <= limits.max
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is bool(fits)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1024.0)


def test_integer_weights_that_two_layers_read_stay():
    held = {"q": np.full((4, 4, 1, 1), 3, "i1"), "s": np.full(4, 0.5, "f4")}
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["v"], axis=0),
        node("Sigmoid", ["c"], ["t"]),
        node("Conv", ["t", "v"], ["other"]),
        node("Sigmoid", ["other"], ["u"]),
        node("Conv", ["u", "v"], ["d"]),
    ]
    _, (plan,) = fold_proto(chain(*nodes, held=held))
    assert [outcome.reason for _, outcome in plan.outcomes] == ["consumers"]


@pytest.mark.parametrize("axis", [0, 1, None])
def test_scales_along_another_axis_take_no_gain(axis):
    held = {"q": np.full((4, 4, 1, 1), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], **({} if axis is None else {"axis": axis})),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (axis == 0)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1024.0)


@pytest.mark.parametrize("opset", [10, 12, 13, 17])
@pytest.mark.parametrize("gains", [[2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 0.5, 3.0]])
def test_one_scale_for_all_becomes_one_per_channel_where_the_operator_can(opset, gains):
    """DequantizeLinear has an axis since opset 13 alone."""
    held = {"q": np.random.default_rng(1).integers(-99, 99, (4, 4, 1, 1)).astype("i1"), "s": np.array(0.02, "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"]),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=gains)
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", opset)])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (opset >= 13)
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("op", ["Gemm", "transposed Gemm", "MatMul"])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_integer_weights_of_dense_layers(op, behind, axis):
    """A gain goes into scales that lie along the outputs; those of the inputs are summed over."""
    rng = np.random.default_rng(3)
    out = 5
    shape = (out, 4) if op == "transposed Gemm" else (4, out)
    held = {
        **batch_norm("bn", out if behind else 4, 1),
        "q": rng.integers(-90, 90, shape).astype("i1"),
        "s": rng.uniform(0.01, 0.05, shape[axis]).astype("f4"),
    }
    held["bn_bias"] = held["bn_mean"] = np.zeros_like(held["bn_mean"])
    layer = node("MatMul" if op == "MatMul" else "Gemm", ["l", "v"], ["m"], **({"transB": 1} if "trans" in op else {}))
    nodes = [
        node("Sigmoid", ["x"], ["l" if behind else "b"]),
        *([] if behind else [bn_node("b", "l", "bn")]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        layer,
        *([bn_node("m", "n", "bn")] if behind else []),
        node("Sigmoid", ["n" if behind else "m"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, out])], held)
    folded, (plan,) = fold_proto(model)
    along = behind and axis == (0 if op == "transposed Gemm" else 1)
    assert bool(plan.folds) is along, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1024.0)


def initializer(model, name):
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


@pytest.mark.parametrize("gain", [2.0, -2.0, 0.5])
@pytest.mark.parametrize("zero", [None, 3])
def test_one_scale_for_all_stays_one_where_one_gain_does(gain, zero):
    held = {"q": np.random.default_rng(1).integers(-99, 99, (4, 4, 1, 1)).astype("i1"), "s": np.array(0.02, "f4")}
    held["bn_var"] = np.full(4, 1.0, "f4")
    if zero is not None:
        held["z"] = np.array(zero, "i1")
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", *(["z"] if zero is not None else [])], ["v"]),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[gain] * 4)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    (dequantize,) = (n for n in folded.graph.node if n.op_type == "DequantizeLinear")
    scale = initializer(folded, dequantize.input[1])
    assert scale.shape == ()
    np.testing.assert_allclose(scale, 0.02 * abs(gain) / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert not dequantize.attribute
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(
    ("integer", "zero", "folds"),
    [(-127, 0, True), (-128, 0, False), (126, -1, True), (127, -1, False), (-128, -1, True), (127, 0, True)],
)
def test_integers_may_be_flipped_up_to_the_ends_of_their_type(integer, zero, folds):
    held = {"q": np.full((4, 4, 1, 1), integer, "i1"), "s": np.full(4, 0.02, "f4"), "z": np.full(4, zero, "i1")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[1.0, -1.0, 2.0, 1.0])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("axis", [0, 1, -3])
@pytest.mark.parametrize("group", [None, 1, 2])
def test_integer_weights_of_a_transposed_convolution(axis, group):
    """Their second axis counts the outputs, of one group: with several no axis does."""
    rng = np.random.default_rng(4)
    columns = 4 // (group or 1)
    shape = (4, columns, 1, 1)
    held = {"q": rng.integers(-90, 90, shape).astype("i1"), "s": rng.uniform(0.01, 0.05, shape[axis]).astype("f4")}
    attributes = {} if group is None else {"group": group}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        node("ConvTranspose", ["t", "v"], ["d"], **attributes),
    ]
    model = chain(*nodes, held=held, gains=[1.0, 2.0, 0.5, 3.0])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (axis != 0 and group != 2), plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1024.0)


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [2.0, 2.0, 2.0, 2.0]])
@pytest.mark.parametrize("scales", [(), (2,)])
def test_integer_weights_of_groups_take_no_gains_behind_a_transposed_convolution(gains, scales):
    """Their second axis counts the outputs of each group, so a scale is shared by two outputs."""
    held = {"q": np.arange(-4, 4).astype("i1").reshape(4, 2, 1, 1), "s": np.full(scales, 0.02, "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=1),
        node("ConvTranspose", ["t", "v"], ["d"], group=2),
    ]
    model = chain(*nodes, held=held, gains=gains)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "unsupported-dtype"
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


def test_two_scales_along_the_inputs_take_no_gain():
    """Two as well as more."""
    held = {"q": np.arange(-4, 4).astype("i1").reshape(4, 2, 1, 1), "s": np.array([0.02, 0.03], "f4")}
    held |= batch_norm("bn", 4, 1) | {"w": weights(1, 2, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=1),
        node("Conv", ["c", "v"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert "scales along another axis" in kept.detail
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("blocks", [0, 2])
def test_which_integers_take_a_gain(dtype, blocks):
    """Of 8 and 16 bits, one scale per channel; of blocks none."""
    held = {"q": np.full((4, 4, 1, 1), 3, dtype), "s": np.full((4, 2, 1, 1) if blocks else 4, 0.5, "f4")}
    attributes = {"axis": 1, "block_size": blocks} if blocks else {"axis": 0}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], **attributes),
        node("Conv", ["t", "v"], ["d"]),
    ]
    model = chain(*nodes, held=held, gains=[1.0, 2.0, 0.5, 3.0])
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", 21)])
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (dtype != "int32" and not blocks), plan.outcomes


def test_the_axis_of_scales_is_1_unless_it_is_named():
    held = {"q": np.full((4, 5), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4, 0.5], "f4"), **batch_norm("bn", 5, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["l"]),
        node("DequantizeLinear", ["q", "s"], ["v"]),
        node("Gemm", ["l", "v"], ["m"]),
        bn_node("m", "n", "bn"),
        node("Sigmoid", ["n"], ["y"]),
    ]
    held["bn_scale"] = np.abs(held["bn_scale"])
    model = make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_integer_matrix_on_the_left_takes_no_gain(axis):
    """Its rows are the outputs, but the scales of MatMul's integer weights are read along its last axis."""
    held = {"q": np.full((4, 4), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4"), **batch_norm("bn", 4, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["l"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        node("MatMul", ["v", "l"], ["m"]),
        bn_node("m", "n", "bn"),
        node("Sigmoid", ["n"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 3])], [tensor("y", [2, 4, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    assert folded.graph.node[2].op_type == "MatMul"
