"""Weight standardization: a BatchNormalization whose input is a weight makes another weight, computed once."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper, load

from bnfold.api import fold, verify
from tests.builders import make, node, tensor
from tests.folding import assert_equivalent, fold_proto, reasons

OUT, INNER = 4, 27


def standardized(*, training=1, opset=17, is_output=False, overridable=False, mean=0.3):
    """A Conv whose weights a BatchNormalization standardizes, per output channel, and a BatchNorm behind."""
    rng = np.random.default_rng(5)
    held = {
        "w": (rng.standard_normal((OUT, 3, 3, 3)) + mean).astype("f4"),
        "rows": np.array([1, OUT, -1]),
        "kernel": np.array([OUT, 3, 3, 3]),
        "zeros": np.zeros(OUT, "f4"),
        "mean": np.zeros(OUT, "f4"),  # not shared: onnxruntime updates it in place
        "ones": np.ones(OUT, "f4"),
        "gain": np.array([0.5, 1.0, 2.0, -1.5], "f4"),
        "bias": np.array([0.1, -0.2, 0.3, 0.0], "f4"),
        "mu": np.array([0.2, -0.1, 0.0, 0.4], "f4"),
        "var": np.array([0.5, 1.5, 1.0, 2.0], "f4"),
    }
    extra = {"training_mode": training} if training else {}
    outputs = ["s", "sm", "sv"] if training else ["s"]
    nodes = [
        node("Reshape", ["w", "rows"], ["r"]),
        node("BatchNormalization", ["r", "gain", "zeros", "mean", "ones"], outputs, name="standardize", **extra),
        node("Reshape", ["s", "kernel"], ["k"]),
        node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "gain", "bias", "mu", "var"], ["y"], name="norm"),
    ]
    wanted = [tensor("y", [2, OUT, 5, 5])] + ([tensor("s", [1, OUT, INNER])] if is_output else [])
    inputs = [tensor("x", [2, 3, 5, 5])] + ([tensor("w", [OUT, 3, 3, 3])] if overridable else [])
    return make(nodes, inputs, wanted, held, opset=opset, ir_version=8)


@pytest.mark.parametrize("training", [1, 0])
def test_standardized_weights_are_computed_and_take_the_batch_norm_behind(training, tmp_path):
    model = standardized(training=training)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2
    assert [n.op_type for n in folded.graph.node] == ["Conv"]
    assert len(folded.graph.initializer) == 2
    assert_equivalent(model, folded, 64.0)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert fold(tmp_path / "m.onnx", tmp_path / "f.onnx").verification.verdict == "equivalent"


@pytest.mark.parametrize("mean", [0.3, 3.0])
def test_what_onnxruntime_computes_of_them_is_equivalent(mean, tmp_path):
    """It subtracts in float32: small weights carry the roundings of large ones."""
    (tmp_path / "m.onnx").write_bytes(standardized(mean=mean).SerializeToString())
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(tmp_path / "f.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), settings)
    assert "BatchNormalization" not in [n.op_type for n in load(tmp_path / "f.onnx").graph.node]
    assert verify(tmp_path / "m.onnx", tmp_path / "f.onnx").verdict == "equivalent"


def test_a_wrong_standardization_is_found(tmp_path):
    """The unbiased variance in the place of the biased one: 2 % of every weight."""
    model = standardized()
    folded, _ = fold_proto(model)
    (conv,) = (n for n in folded.graph.node if n.op_type == "Conv")
    (held,) = (t for t in folded.graph.initializer if t.name == conv.input[1])
    held.raw_data = (np.frombuffer(held.raw_data, "f4") * np.float32(np.sqrt((INNER - 1) / INNER))).tobytes()
    for name, each in (("m", model), ("f", folded)):
        (tmp_path / f"{name}.onnx").write_bytes(each.SerializeToString())
    assert verify(tmp_path / "m.onnx", tmp_path / "f.onnx").verdict == "different"


def test_weights_that_others_see_are_left(tmp_path):
    model = standardized(is_output=True)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan)[0] == "dynamic-weights"
    assert [n.name for n in folded.graph.node if n.op_type == "BatchNormalization"] == ["standardize"]
    assert_equivalent(model, folded, 64.0)
    overridable = standardized(overridable=True)
    _, (plan,) = fold_proto(overridable)
    assert not plan.folds


def test_an_if_that_reads_them_keeps_them():
    model = standardized()
    branch = helper.make_graph([node("Identity", ["s"], ["t"])], "branch", [], [tensor("t", [1, OUT, INNER])])
    held = {
        t.name: np.frombuffer(t.raw_data, "f4" if t.data_type == 1 else "i8").reshape(t.dims)
        for t in model.graph.initializer
    }
    nodes = [*model.graph.node, node("If", ["q"], ["z"], then_branch=branch, else_branch=branch)]
    outputs = [*model.graph.output, tensor("z", [1, OUT, INNER])]
    inputs = [*model.graph.input, tensor("q", [], 9)]
    _, (plan, *_) = fold_proto(make(nodes, inputs, outputs, held, opset=17, ir_version=8))
    assert reasons(plan)[0] == "dynamic-weights"
