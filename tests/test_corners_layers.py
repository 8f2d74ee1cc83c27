"""Corners of what absorbs: layers of any kind, and what is known of their constants."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_corners import chain

from bnfold.errors import InputError
from bnfold.ir.op_views import constant_shape


def exactly(gain, shift, channels=4):
    """A BatchNormalization of exactly this gain and shift, in float64 as well."""
    one, zero = np.ones(channels, "f4"), np.zeros(channels, "f4")
    held = {"bn_scale": gain * one, "bn_bias": shift * one, "bn_mean": zero, "bn_var": one}
    return held, bn_node("s", "b", "bn", epsilon=0.0)


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize(
    ("gain", "shift"), [(2.0, 0.0), (2.0, 1.0), (0.5, 0.0), (0.5, 1.0), (1.0, 2.0), (1.0, 1.0), (-1.0, 1.0)]
)
def test_a_layer_takes_round_numbers(op, gain, shift):
    held, norm = exactly(gain, shift)
    spatial = [1, 1] if op == "Conv" else []
    held["w"] = weights(1, *([3, 4, 1, 1] if op == "Conv" else [4, 3]))
    held["k"] = weights(2, 3)
    layer = [node(op, ["b", "w"] if op == "MatMul" else ["b", "w", "k"], ["m"])]
    layer += [node("Add", ["m", "k"], ["d"])] if op == "MatMul" else [node("Identity", ["m"], ["d"])]
    nodes = [node("Sigmoid", ["x"], ["s"]), norm, *layer, node("Sigmoid", ["d"], ["y"])]
    model = make(nodes, [tensor("x", [2, 4, *spatial])], [tensor("y", [2, 3, *spatial])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_a_layer_takes_a_gain_of_zero_behind_it(op):
    held, _ = exactly(0.0, 3.0)
    spatial = [1, 1] if op == "Conv" else []
    held["w"] = weights(1, *([4, 3, 1, 1] if op == "Conv" else [3, 4]))
    held["k"] = weights(2, 4)
    layer = [node(op, ["x", "w"] if op == "MatMul" else ["x", "w", "k"], ["m"])]
    layer += [node("Add", ["m", "k"], ["s"])] if op == "MatMul" else [node("Identity", ["m"], ["s"])]
    nodes = [*layer, bn_node("s", "b", "bn", epsilon=0.0), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", [2, 4, *spatial])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("rows", [1, 2])
def test_what_a_gemm_need_not_change_stays(rows):
    """A gain in front goes into the matrix alone; ``beta`` and C stay as they are."""
    held, norm = exactly(2.0, 0.0)
    held |= {"w": weights(1, 4, 3), "k": weights(2, rows, 3)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        norm,
        node("Gemm", ["b", "w", "k"], ["d"], beta=0.5, alpha=1.5),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 3])], held)
    folded, _ = fold_proto(model)
    gemm = next(n for n in folded.graph.node if n.op_type == "Gemm")
    assert gemm.input[2] == "k"
    assert {a.name: round(a.f, 6) for a in gemm.attribute} == {"alpha": 1.5, "beta": 0.5}
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_matrix_on_the_left_carries_a_shift():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 3, 4), "k": weights(2, 3, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("MatMul", ["w", "b"], ["m"]),
        node("Add", ["m", "k"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", [2, 3, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
    held["w"] = weights(1, 4, 4)  # a square one, which could be read either way
    held["k"] = weights(2, 4, 1)
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", [2, 4, 5])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_value_of_unknown_type_still_gets_its_bias_in_that_of_the_weight():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [node("Conv", ["s", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("s", [1, 3, 4, 4])], [tensor("y", None)], held)
    model.graph.input[0].name = "x"
    model.graph.node.insert(0, node("Strange", ["x"], ["s"], domain="example.org"))
    model.opset_import.add(domain="example.org", version=1)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert {t.data_type for t in folded.graph.initializer} == {1}


def test_a_shift_left_behind_needs_a_known_rank():
    held = {"k": weights(1, 6, 4), "bn_scale": np.full(4, 2.0, "f4"), "bn_bias": np.full(4, 3.0, "f4")}
    held |= {"bn_mean": np.zeros(4, "f4"), "bn_var": np.ones(4, "f4")}
    nodes = [
        node("MatMul", ["x", "k"], ["m"]),
        node("Reshape", ["m", "shape"], ["r"]),
        bn_node("r", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    inputs = [tensor("x", [2, 6]), tensor("shape", ["n"], onnx.TensorProto.INT64)]
    model = make(nodes, inputs, [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == ["unknown-shape"]
    feeds = {"x": weights(5, 2, 6), "shape": np.array([1, 4, 2], "i8")}
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize("shape", [(2, 3), None, (2, "N")])
def test_the_shape_of_a_constant_is_known_with_or_without_its_data(shape):
    value = SimpleNamespace(shape=shape)
    constants = SimpleNamespace(evaluate=lambda _: np.zeros((2, 3)))
    fake = SimpleNamespace(inputs=[None, value], graph=SimpleNamespace(constants=constants))
    assert constant_shape(fake, 1) == (2, 3)


def test_the_shape_of_a_constant_is_read_off_without_its_data():
    fake = SimpleNamespace(inputs=[SimpleNamespace(shape=(2, 3))], graph=None)
    assert constant_shape(fake, 0) == (2, 3)


@pytest.mark.parametrize(
    ("layer", "held", "code", "says"),
    [
        (node("Conv", ["c", "v"], ["d"], group=0), {"v": weights(2, 4, 4, 1, 1)}, "unknown-shape", "has shape"),
        (node("Conv", ["c", "v"], ["d"], group=4), {"v": weights(2, 6, 1, 1, 1)}, "unknown-shape", "don't divide"),
        (node("Gemm", ["f", "v", "k"], ["d"]), {"v": weights(2, 4, 4), "k": weights(3, 3)}, "unknown-shape", "C of"),
        (node("MatMul", ["f", "v"], ["d"]), {"v": weights(2, 4, 0)}, "unknown-shape", "one constant matrix"),
        (node("Gemm", ["f", "v"], ["d"]), {"v": weights(2, 4, 0)}, "unknown-shape", "has shape"),
    ],
)
def test_layers_that_contradict_themselves_take_nothing(layer, held, code, says):
    flat = layer.op_type in ("Gemm", "MatMul")
    parts = {**batch_norm("bn", held["v"].shape[-1 if flat else 0], 1), "w": weights(1, 4, 3, 1, 1), **held}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        *([node("Flatten", ["c"], ["f"])] if flat else []),
        layer,
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    try:
        model = make(nodes, [tensor("x", [1, 3, 1, 1])], [tensor("y", None)], parts)
        _, (plan,) = fold_proto(model)
    except InputError as error:  # the loader has seen it already
        assert "shape" in str(error)
        return
    ((_, kept),) = plan.outcomes
    assert kept.reason == code
    assert says in kept.detail


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_layer_knows_its_features_by_its_weights(op):
    checks = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    held = {"g": weights(1, 6) + 2, "h": weights(2, 6), "w": weights(3, 1, checks * 5, 6)}
    held["r"] = weights(4, 1, checks * 5, 5)
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "g"], ["p"]),
        node("Add", ["p", "h"], ["d"]),
        node(op, ["d", "w", "r"], ["y"], hidden_size=5),
    ]
    model = make(nodes, [tensor("x", ["time", "batch", 6])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_integers_that_a_gain_of_zero_hides_need_no_flipping():
    """-128 has no opposite in int8; times a scale of 0 it needs none."""
    q = np.full((4, 4, 1, 1), 7, "i1")
    q[2] = -128
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
        held={"q": q, "s": np.full(4, 0.02, "f4")},
        gains=[1.0, -1.0, 0.0, 2.0],
    )
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(("highest", "folds"), [(240, True), (241, False)])
def test_unsigned_integers_may_be_flipped_about_their_zero_point(highest, folds):
    q = np.resize(np.array([0, 60, 130, highest], "u1"), (4, 4, 1, 1))
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", "z"], ["v"], axis=0),
        node("Conv", ["t", "v"], ["d"]),
        held={"q": q, "s": np.full(4, 0.02, "f4"), "z": np.full(4, 120, "u1")},
        gains=[1.0, -1.0, 0.5, 2.0],
    )
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_degenerate_variance_is_told_with_its_epsilon():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_var"] = np.full(4, -2e-5, "f4")
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    ((_, kept),) = plan.outcomes
    assert (kept.reason, kept.detail.split()[-1]) == ("degenerate-variance", "-1e-05")


@pytest.mark.parametrize("gain", [2.0, 0.5, -1.0])
def test_a_gain_behind_a_gemm_scales_its_c(gain):
    held, norm = exactly(gain, 0.0)
    held |= {"w": weights(1, 3, 4), "k": weights(2, 2, 4)}
    nodes = [node("Gemm", ["x", "w", "k"], ["s"], beta=0.5, alpha=1.5), norm, node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3])], [tensor("y", [2, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("left", [False, True])
def test_a_product_carries_the_shifts_of_two(left):
    """The second finds the weights as the first has left them."""
    held = {**batch_norm("one", 4, 1), **batch_norm("two", 4, 2), "w": weights(1, *([3, 4] if left else [4, 3]))}
    held["k"] = weights(2, *([3, 1] if left else [3]))
    back = [] if left else [node("Transpose", ["c"], ["t"], perm=[0, 2, 1])]
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "one"),
        bn_node("b", "c", "two"),
        *back,
        node("MatMul", ["w", "c"] if left else ["t", "w"], ["m"]),
        node("Add", ["m", "k"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 5])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
