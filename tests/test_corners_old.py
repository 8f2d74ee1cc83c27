"""Corners of older operator sets: written for mutants that survived."""

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run
from test_corners import chain

from bnfold.errors import InputError
from bnfold.planner.plan import Fold


def of_opset(model, opset):
    """The model under another opset, its BatchNormalization at inference in the words of the old ones."""
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", opset)])
    for each in model.graph.node:
        if each.op_type == "BatchNormalization" and opset < 7:
            each.attribute.append(onnx.helper.make_attribute("is_test", 1))
    return model


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize(
    ("shape", "attributes", "folds"),
    [
        ((4,), {"broadcast": 1, "axis": 1}, True),
        ((4,), {"broadcast": 1, "axis": -3}, True),
        ((4, 1), {"broadcast": 1, "axis": 1}, True),
        ((4, 1, 1), {"broadcast": 1}, True),
        ((1,), {"broadcast": 1}, True),
        ((1, 4, 1, 1), {"broadcast": 1, "axis": 0}, True),
        ((1, 4, 4, 4), {}, True),
        ((1, 4, 4, 4), {"axis": 1}, True),  # which says nothing where nothing is broadcast
        ((4, 1, 1), {}, False),
        ((1, 1), {}, False),
        ((4,), {"broadcast": 1}, False),
        ((4,), {"broadcast": 1, "axis": 3}, False),
        ((4,), {"broadcast": 1, "axis": 4}, False),
        ((4,), {}, False),
    ],
)
def test_how_operands_were_broadcast_before_opset_7(op, shape, attributes, folds):
    """Judged by onnx's own conversion to a newer opset; a map along the width is none per channel."""
    from onnx import version_converter

    constant = np.resize(np.array([0.5, -1.0, 2.0, 0.25], "f4").repeat(max(1, np.prod(shape) // 4)), shape)
    model = chain(node(op, ["c", "k"], ["d"], name="op", **attributes), held={"k": constant})
    model = of_opset(model, 6)
    try:
        folded, (plan,) = fold_proto(model)
    except InputError:
        assert not folds
        return
    bn = [outcome for op_, outcome in plan.outcomes if op_.form == "BatchNormalization"]
    assert all(isinstance(outcome, Fold) for outcome in bn) is folds or op in ("Add", "Sub")
    try:
        newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
        expected = run(newer[0], feeds_for(model))
    except Exception:  # the converter, or onnxruntime, does not take what is no model
        return
    assert_same(expected, run(newer[1], feeds_for(model)), 512.0)


@pytest.mark.parametrize(("op", "broadcast"), [("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1), ("Sum", 0)])
def test_values_are_added_before_opset_7(op, broadcast):
    """Two computed values, which the operator may stretch only where it says so."""
    attributes = {"broadcast": 1} if broadcast else {}
    model = chain(node("Sigmoid", ["c"], ["s"]), node("Conv", ["s", "v"], ["t"]), node("Conv", ["s", "v"], ["u"]),
                  node(op, ["t", "u"], ["d"], **attributes), held={"v": weights(5, 4, 4, 1, 1)})  # fmt: skip
    model = of_opset(model, 6)
    _, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == [
        "unknown-op" if broadcast else "folds"
    ]


@pytest.mark.parametrize("opset", [6, 7])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(1,), (4, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("same", [False, True])
def test_a_constant_grows_since_opset_7_alone(opset, op, shape, same):
    """One number for all channels can't become one for each where the operator says how to broadcast it."""
    from onnx import version_converter

    constant = np.array([0.5, -1.0, 2.0, 0.25], "f4")[: int(np.prod(shape))].reshape(shape)
    broadcast = {"broadcast": 1} if opset < 7 else {}
    model = chain(node(op, ["c", "k"], ["d"], **broadcast), held={"k": constant}, gains=[1.5] * 4)
    if same:  # one map for all channels
        for tensor_ in model.graph.initializer:
            if tensor_.name.startswith("bn_"):
                tensor_.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 0.75, "f4"), tensor_.name))
    model = of_opset(model, opset)
    folded, (plan,) = fold_proto(model, scales=False)
    outcome = next(outcome for op_, outcome in plan.outcomes if op_.form == "BatchNormalization")
    fits = same or shape == (4, 1, 1) or opset == 7
    fits &= op in ("Add", "Sub") or shape != (1, 1, 4)  # which would divide the shift by other numbers in each column
    assert isinstance(outcome, Fold) is fits, outcome
    newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
    assert_same(run(newer[0], feeds_for(model)), run(newer[1], feeds_for(model)), 512.0)


@pytest.mark.parametrize("axis", [-1, 3])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_an_old_axis_counts_from_either_end(op, axis):
    """A constant along the width, around which a gain that is the same everywhere goes."""
    from onnx import version_converter

    k = np.array([0.5, -1.0, 2.0, 0.25], "f4")
    model = chain(node(op, ["c", "k"], ["d"], broadcast=1, axis=axis), held={"k": k})
    for tensor_ in model.graph.initializer:
        if tensor_.name.startswith("bn_"):
            data = np.full(4, 0.0 if tensor_.name in ("bn_mean", "bn_bias") else 1.5, "f4")
            tensor_.CopyFrom(onnx.numpy_helper.from_array(data, tensor_.name))
    model = of_opset(model, 6)
    folded, (plan,) = fold_proto(model, scales=False)
    assert [fold.op.form for fold in plan.folds] == ["BatchNormalization"], plan.outcomes
    if axis < 0:  # which the converter does not know
        return
    newer = [version_converter.convert_version(each, 13) for each in (model, folded)]
    assert_same(run(newer[0], feeds_for(model)), run(newer[1], feeds_for(model)), 512.0)


@pytest.mark.parametrize("channels", [2, 3])
def test_an_old_number_for_all_stays_one(channels):
    held = {**batch_norm("bn", channels, 1), "w": weights(1, channels, 3, 1, 1), "k": np.array([0.5], "f4")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Add", ["c", "k"], ["d"], broadcast=1),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = of_opset(make(nodes, [tensor("x", [2, 3, 4, 4])], [tensor("y", [2, channels, 4, 4])], held), 6)
    _, (plan,) = fold_proto(model, scales=False)
    ((_, kept),) = [pair for pair in plan.outcomes if pair[0].form == "BatchNormalization"]
    assert "can't grow" in kept.detail


def test_an_old_constant_for_each_sample_takes_a_shift_for_each_channel():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 2, 4, 4, 4)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Add", ["c", "k"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = of_opset(make(nodes, [tensor("x", [2, 3, 4, 4])], [tensor("y", [2, 4, 4, 4])], held), 6)
    _, (plan,) = fold_proto(model, scales=False)
    assert [fold.op.form for fold in plan.folds] == ["BatchNormalization"], plan.outcomes


@pytest.mark.parametrize(("op", "opset"), [("Resize", 10), ("Upsample", 9)])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 2, 1, 1]])
def test_older_resizes_name_their_scales_elsewhere(op, opset, scales):
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
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def settings():
    """Each opset, with what a BatchNormalization of it can say, and the further outputs that it can have."""
    for opset in (6, 7, 8, 9, 13, 14, 15):
        says = {6: "is_test", 14: "training_mode", 15: "training_mode"}.get(opset)
        for attributes in [{}] if says is None else [{}, {says: 0}, {says: 1}]:
            for more in (0, 1, 2) if opset >= 14 else (0, 1, 4):
                yield opset, attributes, more


@pytest.mark.parametrize(("opset", "attributes", "more"), list(settings()))
def test_what_training_is_in_each_opset(opset, attributes, more):
    """Opset 6 says so by ``is_test``, 7 to 13 by further outputs, later ones by ``training_mode``."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    bn = bn_node("c", "y", "bn", **attributes)
    bn.output.extend(["mean", "var", "saved_mean", "saved_var"][:more])
    outputs = [tensor("y", [1, 4, 4, 4]), *(tensor(name, [4]) for name in bn.output[1:])]
    model = make([node("Conv", ["x", "w"], ["c"]), bn], [tensor("x", [1, 3, 4, 4])], outputs[:1], held, opset=opset)
    model.graph.output.extend(outputs[1:])
    trains = attributes.get("training_mode") if opset >= 14 else opset < 7 and not attributes.get("is_test")
    _, (plan,) = fold_proto(model)
    told = [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]
    assert told == ["training-mode" if trains or more else "folds"]


@pytest.mark.parametrize("opset", [7, 8, 11])
def test_a_dropout_drops_nothing_from_opset_7_to_11(opset):
    _, (plan,) = fold_proto(of_opset(chain(node("Dropout", ["c"], ["d"])), opset))
    assert plan.folds


@pytest.mark.parametrize("spatial", [0, 1, None])
@pytest.mark.parametrize("positions", [(2,), (2, 3)])
def test_statistics_per_position_are_those_of_spatial_0_alone(spatial, positions):
    held = {key: np.resize(row.repeat(np.prod(positions)), (4, *positions)) for key, row in batch_norm("bn", 4).items()}
    attributes = {} if spatial is None else {"spatial": spatial}
    layer = [node("Mul", ["x", "k"], ["m"]), node("Add", ["m", "k"], ["c"])]
    nodes = [*layer, bn_node("c", "b", "bn", **attributes), node("Sigmoid", ["b"], ["y"])]
    held["k"] = weights(1, 4, *positions)
    model = make(nodes, [tensor("x", [1, 4, *positions])], [tensor("y", None)], held, opset=8)
    _, (plan,) = fold_proto(model, scales=False)
    outcomes = [getattr(o, "reason", "folds") for op, o in plan.outcomes if op.form == "BatchNormalization"]
    assert outcomes == ["folds" if spatial == 0 else "channel-axis"]


@pytest.mark.parametrize("attributes", [{}, {"is_test": 0}, {"is_test": 1}])
def test_a_dropout_of_opset_6_says_that_it_does_not_drop(attributes):
    model = of_opset(chain(node("Dropout", ["c"], ["d"], **attributes)), 6)
    _, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == [
        "folds" if attributes.get("is_test") else "training-mode"
    ]


def test_a_variance_of_nothing_at_all_is_degenerate():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    held["bn_var"] = np.array([1.0, 0.0, 1.0, 1.0], "f4")
    for epsilon, folds in ((0.0, False), (1e-7, True)):
        nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "y", "bn", epsilon=epsilon)]
        _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held))
        assert [getattr(o, "reason", "folds") for _, o in plan.outcomes] == [
            "folds" if folds else "degenerate-variance"
        ]


@pytest.mark.parametrize(("shape", "axis"), [((1,), -5), ((4,), -4), ((1, 1, 4, 1, 1), 0)])
def test_an_old_axis_beyond_the_first_is_no_axis(shape, axis):
    held = {"w": weights(1, 4, 4, 1, 1), "k": np.full(shape, 2.0, "f4")}
    nodes = [node("Mul", ["x", "k"], ["m"], broadcast=1, axis=axis), node("Conv", ["m", "w"], ["y"])]
    graph = make(nodes[1:], [tensor("m", [1, 4, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    graph.graph.input[0].name = "x"
    graph.graph.node.insert(0, nodes[0])
    _, (plan,) = fold_proto(of_opset(graph, 6))
    assert not plan.folds


@pytest.mark.parametrize("op", ["ConvTranspose", "MatMul"])
def test_scales_along_axis_1_were_known_before_opset_13(op):
    """DequantizeLinear had no axis to name, and took them along axis 1."""
    spatial = [1, 1] if op == "ConvTranspose" else []
    held = {"q": np.arange(-6, 6).astype("i1").reshape(3, 4, *spatial), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4")}
    held["g"] = np.array([2.0, 3.0, 4.0, -5.0], "f4").reshape(4, *spatial)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["w"]),
        node(op, ["x", "w"], ["c"]),
        node("Mul", ["c", "g"], ["b"]),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", None)], held, opset=12)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
