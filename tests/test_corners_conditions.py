"""Corners of conditions: where the second half of an ``or`` is what keeps a fold from being wrong."""

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_contradictions import make as bare


def fates(model):
    """What becomes of each operator that might go, and the folded model."""
    folded, (plan,) = fold_proto(model)
    return [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes], folded


def test_an_operand_of_fewer_axes_is_not_aligned_with_the_map():
    """Its second axis is as long as the channels are, and is none of them."""
    held = {
        **batch_norm("bn", 4, 1),
        "w": weights(1, 4, 3, 1, 1),
        "v": weights(2, 4, 3, 1, 1),
        "to": np.array([4, 4, 6]),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Conv", ["x", "v"], ["d"]),
        node("Reshape", ["d", "to"], ["p"]),
        node("Add", ["c", "p"], ["a"]),
        bn_node("a", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 6])], [tensor("y", [1, 4, 4, 6])], held)
    found, folded = fates(model)
    assert found == ["unknown-shape"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_square_gemm_that_transposes_its_input_takes_no_map_of_it(transposed, bias):
    """The channels of its input are rows of what it multiplies: there are as many, and they are others."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 3, 2), "k": weights(2, 2)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Gemm", ["b", "w", *(["k"] if bias else [])], ["y"], transA=int(transposed)),
    ]
    model = make(nodes, [tensor("x", [3, 3])], [tensor("y", [3, 2])], held)
    found, folded = fates(model)
    assert found == ["channel-axis" if transposed else "folds"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_channels_on_the_first_axis_have_no_positions():
    """The channels of a matrix that is multiplied from the left are its rows."""
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "k"], ["m"]),
        node("MatMul", ["w", "m"], ["p"]),
        node("Sigmoid", ["p"], ["y"]),
    ]
    held = {"k": weights(1, 3, 4) + 2, "w": weights(2, 2, 3)}
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [3, 4])], [tensor("y", [2, 4])], held))
    ((_, kept),) = plan.outcomes
    assert "has 3 channels on axis 0" in kept.detail


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("extra", [False, True])
def test_before_opset_14_further_outputs_say_that_it_trains(opset, extra):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    norm = bn_node("c", "b", "bn")
    norm.output.extend(["bn_mean_out", "bn_var_out"] if extra else [])
    nodes = [node("Conv", ["x", "w"], ["c"]), norm, node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held, opset=opset)
    _, (plan,) = fold_proto(model)
    ((_, outcome),) = plan.outcomes
    assert getattr(outcome, "reason", "folds") == ("training-mode" if extra else "folds")
    if extra:
        assert "2 further outputs" in outcome.detail


@pytest.mark.parametrize("extra", [1, 2])
def test_since_opset_14_further_outputs_are_for_updated_statistics(extra):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    norm = bn_node("c", "b", "bn")
    norm.output.extend(["mean_out", "var_out"][:extra])
    nodes = [node("Conv", ["x", "w"], ["c"]), norm, node("Sigmoid", ["b"], ["y"])]
    found, _ = fates(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=15))
    assert found == ["training-mode"]


@pytest.mark.parametrize(
    ("shape", "fate"),
    [((1, "C"), "folds"), (("N", 4), "folds"), (("N", 5), "channel-axis"), (("N", 3), "channel-axis")],
)
def test_the_channels_are_the_second_axis_known_or_not(shape, fate):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 3, 4, 1, 1)}
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"])]
    found, _ = fates(bare(nodes, [tensor("x", [*shape, 4, 4])], [tensor("y", None)], held))
    assert found == [fate]


def test_parameters_that_are_no_vectors():
    held = {f"bn_{part}": np.array(1.0, "f4") for part in ("scale", "bias", "mean", "var")}
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    held["w"] = weights(1, 1, 3, 1, 1)
    found, _ = fates(bare(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    assert found == ["channel-axis"]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 5)])
def test_statistics_per_position_take_no_map(shape):
    """Of opset 7, whose BatchNormalization may be per activation; what is in front of it can't go into it."""
    held = {f"bn_{part}": weights(1, *shape) ** 2 + 1 for part in ("scale", "bias", "mean", "var")}
    held["k"] = np.full((1, 4, *[1] * (len(shape) - 1)), 3.0, "f4") * np.arange(1, 5, dtype="f4").reshape(
        1, 4, *[1] * (len(shape) - 1)
    )
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "k"], ["m"]),
        bn_node("m", "b", "bn", spatial=0),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, *shape])], [tensor("y", [2, *shape])], held, opset=7)
    _, (plan,) = fold_proto(model)
    told = {op.name: outcome.detail for op, outcome in plan.outcomes}
    assert "statistics per position" in told["m"]


@pytest.mark.parametrize("shape", [None, [1, 3, 6], [1, 3, 6, 6]])
def test_whether_a_layer_pads_by_itself_is_known_by_the_shape_of_its_input(shape):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 2, 2)}
    nodes = [bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    nodes = [node("Sigmoid", ["x"], ["s"]), *nodes]
    found, _ = fates(bare(nodes, [tensor("x", shape)], [tensor("y", None)], held))
    assert found == ["folds" if shape and len(shape) == 4 else "padding"]


def test_a_split_with_a_part_that_has_no_name_carries_nothing():
    """How long that part is nobody says: the others may start anywhere."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1), "sizes": np.array([2, 2])}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Split", ["c", "sizes"], ["one", ""], axis=1),
        bn_node("one", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    found, _ = fates(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
    assert found == ["unknown-shape"]


@pytest.mark.parametrize("size", [1.0, 1e-15])
def test_a_small_shift_at_a_sum_is_a_shift_among_small_numbers(size):
    """Nothing is negligible but what is so beside the other shifts."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1) * size, "v": weights(2, 4, 3, 1, 1) * size}
    held["bn_bias"], held["bn_mean"] = np.full(4, 3 * size, "f4"), np.zeros(4, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Conv", ["x", "v"], ["d"]),
        node("Add", ["c", "d"], ["a"]),
        bn_node("a", "y", "bn"),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    found, folded = fates(model)
    assert found == ["folds"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_slice_of_what_is_huge_carries_its_map_with_the_whole():
    """The other way, with a map of the slice alone, would take too many numbers."""
    held = {"k": weights(1, 1, 4096, 1, 1) + 9, "v": weights(2, 1, 4096, 1, 1) + 9}
    held |= {"from": np.array([0]), "to": np.array([1024]), "on": np.array([2])}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "k"], ["m"]),
        node("Slice", ["m", "from", "to", "on"], ["c"]),
        node("Mul", ["c", "v"], ["d"]),
        node("Sigmoid", ["d"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 4096, 2048, 1])], [tensor("y", None)], held)
    found, folded = fates(model)
    assert sorted(found) == ["folds", "nonlinear"]
    assert sorted(made.op_type for made in folded.graph.node) == ["Mul", "Sigmoid", "Sigmoid", "Slice"]


def test_axes_that_are_huge_only_together():
    """Neither the channels nor the positions are too many, but their product is."""
    nodes = [
        node("Sigmoid", ["data"], ["x"]),
        node("Mul", ["x", "k"], ["m"]),
        node("Concat", ["m", "z"], ["c"], axis=2),
        node("Sigmoid", ["c"], ["y"]),
    ]
    inputs = [tensor(name, [1, 4096, 2048, 1]) for name in ("data", "z")]
    model = make(nodes, inputs, [tensor("y", None)], {"k": weights(1, 4096, 1, 1) + 9})
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert "huge size" in kept.detail


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_slope_that_is_no_number_is_not_written_again(value):
    """The layers around it change, it does not."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    held["bn_bias"] = held["bn_mean"] = np.zeros(4, "f4")
    held["slope"] = np.array([0.1, value, 0.2, 0.3], "f4").reshape(4, 1, 1)
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("PRelu", ["b", "slope"], ["p"]),
        node("Conv", ["p", "v"], ["y"]),
    ]
    found, folded = fates(make(nodes, [tensor("x", [1, 4, 4, 4])], [tensor("y", None)], held))
    assert found == ["folds"]
    assert "slope" in {tensor.name for tensor in folded.graph.initializer}
