"""Random numbers: equal by place in the proof, never merged, and not judged by runs."""

import numpy as np
import pytest
from onnx import numpy_helper

from bnfold.api import fold
from bnfold.options import VerifyOptions
from bnfold.verification.onnx.verify import verify_files
from sample_models.build import ANY, IMAGE, batch_norm, bn_node, make, node, tensor, weights
from tests.support import fold_proto

KINDS = {
    "RandomNormalLike": (["b"], {}),
    "RandomUniformLike": (["b"], {}),
    "RandomNormal": ([], {"shape": [2, 4, 6, 6]}),
    "RandomUniform": ([], {"shape": [2, 4, 6, 6]}),
    "Bernoulli": (["p"], {}),
    "Dropout": (["b", "ratio", "yes"], {}),
}


def noisy(op, *, reads="r", order=("r", "q"), gain=1.0, more=False, **attributes):
    """Conv and BatchNorm, and behind them twice ``op``: their weighted sum, of which ``reads`` is the first."""
    inputs, own = KINDS[op]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4), "three": np.float32([3.0])}
    held |= {"ratio": np.array(0.5, "f4"), "yes": np.array(True)} if op == "Dropout" else {}
    held["bn_scale"] = held["bn_scale"] * np.float32(gain)
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "b", "bn")]
    nodes += [node("Sigmoid", ["b"], ["p"])] if op == "Bernoulli" else []
    nodes += [node(op, inputs, [name], name=name, **own, **attributes) for name in order]
    nodes += [node("Mul", ["q", "three"], ["q3"]), node("Add", [reads, "q3"], ["s"]), node("Add", ["b", "s"], ["y"])]
    outputs = [tensor("y", None)]
    if more:
        nodes.append(node("Relu", ["b"], ["z"]))
        outputs.append(tensor("z", None))
    return make(nodes, [tensor("x", [2, 3, 8, 8])], outputs, held)


def judged(original, folded, folder, *checks):
    paths = folder / "original.onnx", folder / "folded.onnx"
    for path, model in zip(paths, (original, folded), strict=True):
        path.write_bytes(model.SerializeToString())
    return verify_files(*paths, VerifyOptions(checks or ("structure", "weights")))[0]


@pytest.mark.parametrize("op", KINDS)
def test_a_model_equals_itself_and_its_fold(op, tmp_path):
    model = noisy(op)
    assert judged(model, model, tmp_path).verdict == "equivalent"
    folded = fold_proto(model)[0]
    assert "BatchNormalization" not in {made.op_type for made in folded.graph.node}
    assert judged(model, folded, tmp_path).verdict == "equivalent"


@pytest.mark.parametrize("op", KINDS)
def test_names_say_nothing_of_which_value_is_which(op, tmp_path):
    model = noisy(op)
    renamed = type(model).FromString(model.SerializeToString().replace(b"\x01q", b"\x01k").replace(b"\x01r", b"\x01l"))
    assert {made.name for made in renamed.graph.node} >= {"k", "l"}
    assert judged(model, renamed, tmp_path).verdict == "equivalent"


@pytest.mark.parametrize("op", KINDS)
def test_two_are_not_one_and_order_matters(op, tmp_path):
    """``r + 3 q`` is neither ``q + 3 q``, nor what is drawn in another order; neither is proved to be wrong."""
    model = noisy(op)
    for other in (noisy(op, reads="q"), noisy(op, order=("q", "r"))):
        assert judged(model, other, tmp_path).verdict == "inconclusive"
        assert judged(other, model, tmp_path).verdict == "inconclusive"


def test_seeds_and_shapes_of_distributions_count(tmp_path):
    model = noisy("RandomNormal", seed=1.0)
    assert judged(model, model, tmp_path).verdict == "equivalent"
    for other in (noisy("RandomNormal", seed=2.0), noisy("RandomNormal"), noisy("RandomNormal", seed=1.0, scale=2.0)):
        assert judged(model, other, tmp_path).verdict == "inconclusive"


@pytest.mark.parametrize("op", KINDS)
def test_a_wrong_weight_before_random_numbers_is_wrong(op, tmp_path):
    model = noisy(op)
    wrong = fold_proto(noisy(op, gain=1.01))[0]
    assert judged(model, wrong, tmp_path).verdict == "different"


@pytest.mark.parametrize("op", ["RandomNormalLike", "Bernoulli", "Dropout"])
def test_runs_leave_random_outputs_to_the_proof(op, tmp_path):
    model = noisy(op, more=True)
    folded = fold_proto(model)[0]
    outputs = judged(model, folded, tmp_path, "structure", "weights", "outputs").checks[-1]
    assert (outputs.verdict, outputs.figures["random"]) == ("inconclusive", ["y"])
    assert "only the proof can judge it" in outputs.detail
    wrong = fold_proto(noisy(op, more=True, gain=1.01))[0]
    outputs = judged(model, wrong, tmp_path, "outputs").checks[-1]
    assert outputs.verdict == "fail"
    assert "'z'" in outputs.detail


def test_a_seed_lets_runs_judge(tmp_path):
    model = noisy("RandomNormal", seed=1.0)
    assert judged(model, fold_proto(model)[0], tmp_path, "outputs").verdict == "equivalent"
    wrong = fold_proto(noisy("RandomNormal", seed=1.0, gain=1.01))[0]
    assert judged(model, wrong, tmp_path, "outputs").verdict == "different"


def test_a_weight_held_in_the_model_is_read_as_it_is(tmp_path):
    """The table that Multinomial draws from is no random number."""
    held = {"logits": weights(1, 2, 5)}
    nodes = [node("Multinomial", ["logits"], ["m"], sample_size=3), node("Cast", ["m"], ["f"], to=1)]
    model = make([*nodes, node("Add", ["f", "x"], ["y"])], [tensor("x", [2, 3])], [tensor("y", None)], held)
    other = type(model).FromString(model.SerializeToString())
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(held["logits"] * np.float32(1.1), "logits"))
    assert judged(model, model, tmp_path).verdict == "equivalent"
    assert judged(model, other, tmp_path).verdict == "inconclusive"


def test_a_fold_beside_a_random_operator_is_equivalent(tmp_path):
    """Its output can't be compared between two runs: the proof decides."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("RandomNormalLike", ["b"], ["r"]),
        node("Add", ["b", "r"], ["y"]),
    ]
    model = make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})
    (tmp_path / "random.onnx").write_bytes(model.SerializeToString())
    found = fold(tmp_path / "random.onnx", tmp_path / "folded.onnx")
    assert (found.inspection.foldable, found.verdict) == (1, "equivalent")
    outputs = found.verification.checks[-1]
    assert outputs.verdict == "inconclusive" and not outputs.required and "random" in outputs.detail
