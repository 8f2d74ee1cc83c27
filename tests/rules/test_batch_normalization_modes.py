"""BatchNormalization in each opset: training, per activation, further outputs."""

import numpy as np
import onnx
import pytest

from tests.builders import batch_norm, behind_conv, bn_node, chain, make, node, of_opset, tensor, weights
from tests.folding import assert_same, feeds_for, fold_proto, fold_reasons, reasons, run


@pytest.mark.parametrize("opset", [14, 15, 17, 20])
def test_training_mode_is_kept_in_every_later_opset(opset):
    model = chain(node("Identity", ["c"], ["d"]))
    of_opset(model, opset)
    next(n for n in model.graph.node if n.op_type == "BatchNormalization").attribute.append(
        onnx.helper.make_attribute("training_mode", 1)
    )
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["training-mode"]


def settings():
    """Yield each opset with the attributes its BatchNormalization can have, and the number of further outputs."""
    for opset in (6, 7, 8, 9, 13, 14, 15):
        says = {6: "is_test", 14: "training_mode", 15: "training_mode"}.get(opset)
        for attributes in [{}] if says is None else [{}, {says: 0}, {says: 1}]:
            for more in (0, 1, 2) if opset >= 14 else (0, 1, 4):
                yield opset, attributes, more


@pytest.mark.parametrize(("opset", "attributes", "more"), list(settings()))
def test_training_mode_in_each_opset(opset, attributes, more):
    """Opset 6 has ``is_test`` for it, 7 to 13 further outputs, later ones ``training_mode``."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    bn = bn_node("c", "y", "bn", **attributes)
    bn.output.extend(["mean", "var", "saved_mean", "saved_var"][:more])
    outputs = [tensor("y", [1, 4, 4, 4]), *(tensor(name, [4]) for name in bn.output[1:])]
    model = make([node("Conv", ["x", "w"], ["c"]), bn], [tensor("x", [1, 3, 4, 4])], outputs[:1], held, opset=opset)
    model.graph.output.extend(outputs[1:])
    trains = attributes.get("training_mode") if opset >= 14 else opset < 7 and not attributes.get("is_test")
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["training-mode" if trains or more else "folds"]


@pytest.mark.parametrize("spatial", [0, 1, None])
@pytest.mark.parametrize("positions", [(2,), (2, 3)])
def test_only_spatial_0_has_statistics_per_position(spatial, positions):
    held = {key: np.resize(row.repeat(np.prod(positions)), (4, *positions)) for key, row in batch_norm("bn", 4).items()}
    attributes = {} if spatial is None else {"spatial": spatial}
    layer = [node("Mul", ["x", "k"], ["m"]), node("Add", ["m", "k"], ["c"])]
    nodes = [*layer, bn_node("c", "b", "bn", **attributes), node("Sigmoid", ["b"], ["y"])]
    held["k"] = weights(1, 4, *positions)
    model = make(nodes, [tensor("x", [1, 4, *positions])], [tensor("y", None)], held, opset=8)
    _, (plan,) = fold_proto(model, scales=False)
    outcomes = [getattr(o, "reason", "folds") for op, o in plan.outcomes if op.form == "BatchNormalization"]
    assert outcomes == ["folds" if spatial == 0 else "channel-axis"]


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("extra", [False, True])
def test_further_outputs_before_opset_14_mean_training(opset, extra):
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
def test_further_outputs_since_opset_14_are_updated_statistics(extra):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    norm = bn_node("c", "b", "bn")
    norm.output.extend(["mean_out", "var_out"][:extra])
    nodes = [node("Conv", ["x", "w"], ["c"]), norm, node("Sigmoid", ["b"], ["y"])]
    found, _ = fold_reasons(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held, opset=15))
    assert found == ["training-mode"]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 5)])
def test_a_batch_norm_per_activation_absorbs_nothing(shape):
    """In opset 7, whose BatchNormalization may be per activation: what is in front of it can't fold into it."""
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
    observed = {op.name: outcome.detail for op, outcome in plan.outcomes}
    assert "statistics per position" in observed["m"]


def test_empty_names_of_further_outputs_are_ignored():
    """onnxruntime crashes on such a model: compare with the same model without the empty names."""
    without_names = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=9)
    model = type(without_names).FromString(without_names.SerializeToString())
    model.graph.node[1].output.extend(["", "", "", ""])
    folded, _ = fold_proto(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    feeds = feeds_for(without_names)
    assert_same(run(without_names, feeds), run(folded, feeds))
