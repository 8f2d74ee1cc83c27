"""Corners of constants: what a fold leaves as it is, what it could not store, and those of no entries."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run

import bnfold.planner.apply
from bnfold.api import FoldOptions, fold, verify
from bnfold.errors import InputError
from bnfold.ir.constant_folding import NotEvaluable
from bnfold.rules.operands import like
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable


def names(model):
    return {held.name for held in model.graph.initializer}


def positive(channels=4):
    """A BatchNormalization without a shift."""
    held = batch_norm("bn", channels, 1)
    zero = np.zeros(channels, "f4")
    return held | {"bn_scale": np.abs(held["bn_scale"]), "bn_bias": zero, "bn_mean": zero}


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_a_bias_of_minus_infinity_hides_a_class_all_the_same(tmp_path, op):
    """A gain in front of the layer does not touch it."""
    spatial = [1, 1] if op == "Conv" else []
    held = positive(3) | {"w": weights(1, *([4, 3, 1, 1] if op == "Conv" else [3, 4]))}
    held["k"] = np.array([0.1, -np.inf, 0.2, 0.3], "f4")
    nodes = [bn_node("x", "b", "bn"), node(op, ["b", "w", "k"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", [2, 4, *spatial])], held)
    onnx.save(model, tmp_path / "model.onnx")
    result = fold(tmp_path / "model.onnx", tmp_path / "folded.onnx")
    assert (result.inspection.foldable, result.verdict) == (1, "equivalent")
    assert "k" in names(onnx.load(tmp_path / "folded.onnx"))


def test_minus_infinity_in_the_place_of_a_number_is_a_fault(tmp_path):
    """Equal infinities are no error; others are."""
    held = positive(3) | {"w": weights(1, 4, 3, 1, 1), "k": np.array([0.1, -np.inf, 0.2, 0.3], "f4")}
    nodes = [bn_node("x", "b", "bn"), node("Conv", ["b", "w", "k"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, 1, 1])], [tensor("y", [2, 4, 1, 1])], held)
    onnx.save(model, tmp_path / "model.onnx")
    fold(tmp_path / "model.onnx", tmp_path / "folded.onnx", FoldOptions(verify=None))
    folded = onnx.load(tmp_path / "folded.onnx")
    (bias,) = [held for held in folded.graph.initializer if held.name == "k"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0.1, -np.inf, -np.inf, 0.3], "f4"), "k"))
    onnx.save(folded, tmp_path / "folded.onnx")
    assert verify(tmp_path / "model.onnx", tmp_path / "folded.onnx").verdict == "different"


@pytest.mark.parametrize("slope", [np.inf, np.nan, 0.0])
def test_a_slope_of_any_kind_stays_where_gains_are_positive(slope):
    held = positive() | {"w": weights(1, 4, 3, 1, 1)}
    held["slope"] = np.array([0.1, slope, 0.2, 0.3], "f4").reshape(4, 1, 1)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("PRelu", ["c", "slope"], ["p"]), bn_node("p", "y", "bn")]
    folded, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    assert plan.folds, plan.outcomes
    assert "slope" in names(folded)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (4, 1, 1)])
def test_one_slope_for_all_stays_one(shape):
    held = positive() | {"w": weights(1, 4, 3, 1, 1), "slope": np.full(shape, 0.25, "f4")}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("PRelu", ["c", "slope"], ["p"]), bn_node("p", "y", "bn")]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert names(folded) == {"w_bnfold", "slope"}
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("made", ["product", "integers"])
def test_a_bias_that_is_computed_stays_so_where_nothing_changes_it(made):
    held = positive(3) | {"w": weights(1, 4, 3, 1, 1)}
    if made == "product":
        held |= {"one": weights(2, 4), "two": weights(3, 4)}
        first = node("Mul", ["one", "two"], ["k"])
    else:
        held |= {"q": np.array([100, 7, -3, 55], "i4"), "s": np.array(0.0123, "f4")}
        first = node("DequantizeLinear", ["q", "s"], ["k"])
    nodes = [first, bn_node("x", "b", "bn"), node("Conv", ["b", "w", "k"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert [n.op_type for n in folded.graph.node] == [first.op_type, "Conv"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_constant_of_no_entries_is_no_bug(tmp_path):
    held = {"w": weights(1, 4, 3, 1, 1), "k": np.ones((0, 4, 1, 1), "f4")}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "k"], ["y"])]
    model = make(nodes, [tensor("x", [0, 3, 4, 4])], [tensor("y", None)], held)
    onnx.save(model, tmp_path / "model.onnx")
    assert fold(tmp_path / "model.onnx", tmp_path / "folded.onnx").verdict in ("unchanged", "equivalent")


def test_folds_that_do_not_fit_are_given_up_together(monkeypatch):
    """To plan anew for each would take for ever in a network of thousands."""
    planned, plans = bnfold.planner.apply.plan, []

    def counted(*arguments, **options):
        plans.append(planned(*arguments, **options))
        return plans[-1]

    monkeypatch.setattr(bnfold.planner.apply, "plan", counted)
    held, nodes = {"s": np.full(4, 0.02, "f4")}, []
    for index in range(6):
        held |= batch_norm(f"bn{index}", 4, index) | {f"q{index}": np.full((4, 4, 1, 1), -128, "i1")}
        held[f"bn{index}_scale"] = np.full(4, -1.0, "f4")  # int8 has no 128
        source = f"z{index - 1}" if index else "x"
        nodes += [
            node("DequantizeLinear", [f"q{index}", "s"], [f"w{index}"], axis=0),
            node("Conv", [source, f"w{index}"], [f"c{index}"]),
            bn_node(f"c{index}", f"b{index}", f"bn{index}"),
            node("Sigmoid", [f"b{index}"], [f"z{index}"]),
        ]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor("z5", [1, 4, 3, 3])], held)
    _, (plan,) = fold_proto(model)
    assert [outcome.reason for _, outcome in plan.outcomes] == ["overflow"] * 6
    assert len(plans) == 2


def test_a_factor_that_is_another_number_when_rounded_is_no_factor():
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1), "three": np.full((4, 1, 1), 3, "f4")}
    held["large"] = np.array(1e8, "f4")
    nodes = [
        node("Add", ["three", "large"], ["sum"]),
        node("Sub", ["sum", "large"], ["k"]),
        node("Conv", ["x", "w"], ["c"]),
        node("Mul", ["c", "k"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert {outcome.reason for _, outcome in plan.outcomes} == {"dynamic-weights"}
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        node("DepthToSpace", ["c"], ["d"], blocksize=2),
        node("Transpose", ["c"], ["d"], perm=[0, 2, 1]),
        node("Slice", ["c", "two", "two", "one", "one"], ["d"]),
        node("Add", ["c"], ["d"]),
        node("Mul", ["c", ""], ["d"]),
        node("Add", ["", "c"], ["d"]),
    ],
    ids=lambda n: f"{n.op_type} {len(n.input)}",
)
def test_operators_that_contradict_what_they_read_take_nothing(wrong):
    """Six channels are no four blocks; the loader refuses some of these, the rules the rest."""
    held = batch_norm("bn", 6, 1) | {"w": weights(1, 6, 3, 1, 1), "one": np.array([1]), "two": np.array([0, 1])}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("d", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    try:
        model = make(nodes, [tensor("x", [1, 3, 4, 4]), tensor("d", [1, 6, 4, 4])], [tensor("y", None)], held)
        del model.graph.input[1]
        model.graph.node.insert(1, wrong)
        model.graph.value_info.append(tensor("d", [1, 6, 4, 4]))
        _, (plan,) = fold_proto(model)
    except InputError:
        return
    assert not plan.folds, plan.outcomes


@pytest.mark.parametrize("shape", [[4], [4, 4], None])
def test_a_value_of_one_axis_has_no_channels(shape):
    held = batch_norm("bn", 4, 1)
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Mul", ["b", "two"], ["y"])]
    try:
        _, (plan,) = fold_proto(
            make(nodes, [tensor("x", shape)], [tensor("y", None)], held | {"two": np.array(2, "f4")})
        )
    except InputError:
        assert shape == [4]
        return
    norm = next(outcome for op, outcome in plan.outcomes if op.form == "BatchNormalization")
    assert (norm.reason == "channel-axis") is (shape == [4]), norm


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_bias_that_callers_may_override_is_told(op):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, *([4, 3] if op == "Conv" else [3, 4]), 1, 1), "k": weights(2, 4)}
    nodes = [node(op, ["x", "w", "k"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4]), tensor("k", [4])], [tensor("y", None)], held)
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "overridable"


def test_a_constant_keeps_its_shape_where_it_can():
    """Before opset 7 a broadcast is fixed by it."""
    assert like(np.ones((1, 4, 1, 1)), (4,)).shape == (4,)
    assert like(np.ones((1, 4, 1, 1)), (1, 1)).shape == (4, 1, 1)
    assert like(np.ones((1, 8)), (1, 1)).shape == (1, 8)
    assert like(np.ones((2, 4, 1, 1)), (1,)).shape == (2, 4, 1, 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError(), "overflow"),
        (ValueError(), "unknown-shape"),
        (IndexError(), "unknown-shape"),
        (NotEvaluable("why"), "dynamic-weights"),
        (NotRepresentable(Refusal("padding", "why")), "padding"),
    ],
)
def test_why_a_node_can_t_be_rewritten(error, code):
    assert bnfold.planner.apply._cause(SimpleNamespace(op="Conv", name="c"), error).reason == code


@pytest.mark.parametrize("shape", [[1, "C", 4, 4], ["N", 4, 4, 4], ["N", "C", 4, 4], ["N", 5, 4, 4], [1, 5, 4, 4]])
def test_channels_of_unknown_number_are_those_of_the_parameters(shape):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"])]
    try:
        _, (plan,) = fold_proto(make(nodes, [tensor("x", shape)], [tensor("y", None)], held))
    except (InputError, onnx.shape_inference.InferenceError):
        assert 5 in shape
        return
    ((_, outcome),) = plan.outcomes
    assert getattr(outcome, "reason", "folds") == ("channel-axis" if 5 in shape else "folds")


@pytest.mark.parametrize("missing", range(1, 5))
def test_a_batch_norm_without_one_of_its_parameters_is_none(missing):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, 4, 3, 1, 1)}
    norm = bn_node("c", "b", "bn")
    norm.input[missing] = ""
    nodes = [node("Conv", ["x", "w"], ["c"]), norm, node("Sigmoid", ["b"], ["y"])]
    try:
        _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    except (InputError, onnx.shape_inference.InferenceError):
        return
    assert not plan.folds
