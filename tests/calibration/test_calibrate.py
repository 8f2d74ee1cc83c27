"""Drift and calibration of ONNX models, against numpy and a network with corrupted statistics."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sample_models.build import batch_norm, bn_node, node, tensor

pytest.importorskip("onnxruntime")

from bnfold.api import calibrate, fold, inspect
from bnfold.errors import BnfoldError, InconclusiveError, InputError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.options import CalibrateOptions
from sample_models.accuracy import accuracy
from tests.calibration.models import images, residual, statistics_in


def test_the_corrupted_digits_come_back(tmp_path, samples):
    """The figures of docs/statistics.md."""
    corrupted, data = samples / "digits_corrupted.onnx", samples / "digits_train.npz"
    before = corrupted.read_bytes()
    found = inspect(corrupted, data=data)
    assert all("drift" in row.warnings for row in found.rows)
    assert not any(row.warnings for row in inspect(samples / "digits.onnx", data=data).rows)
    calibrate(corrupted, data, tmp_path / "sequential.onnx")
    calibrate(corrupted, data, tmp_path / "single.onnx", CalibrateOptions("single-pass"))
    fold(tmp_path / "sequential.onnx", tmp_path / "folded.onnx")
    assert accuracy(str(samples / "digits.onnx"))[0] == 358
    assert accuracy(str(corrupted))[0] < 72
    assert accuracy(str(tmp_path / "sequential.onnx"))[0] >= 355
    assert accuracy(str(tmp_path / "folded.onnx"))[0] >= 355
    assert 320 < accuracy(str(tmp_path / "single.onnx"))[0] < 350
    assert corrupted.read_bytes() == before


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_after_calibration_nothing_has_drifted(dtype, batch):
    model, data = residual(dtype), images(dtype=dtype)
    assert max(row.drift.rms for row in inspect(model, data=data).rows) > 0.5
    made = calibrate(model, data, options=CalibrateOptions(batch=batch)).model
    rms = [row.drift.rms for row in inspect(made, data=data).rows]
    assert len(rms) == 3
    assert max(rms) < (1e-6 if dtype == "float32" else 5e-3)
    whole = statistics_in(calibrate(model, data, options=CalibrateOptions(batch=20)).model)
    for name, pair in statistics_in(made).items():
        for part, other in zip(pair, whole[name], strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-5 if dtype == "float32" else 1e-2)


def test_the_first_layer_is_the_exact_mean_and_variance():
    model, data = residual(), images()
    made = statistics_in(calibrate(model, data).model)
    import onnxruntime

    cut = residual()
    del cut.graph.output[:]
    cut.graph.output.append(tensor("c", None))
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(cut.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    (c,) = session.run(["c"], {"x": data})
    np.testing.assert_array_equal(made["a"][0], c.astype("f8").mean((0, 2, 3)).astype("f4"))
    np.testing.assert_array_equal(made["a"][1], c.astype("f8").var((0, 2, 3)).astype("f4"))


def test_a_single_pass_sees_the_stored_statistics():
    model, data = residual(), images()
    drifts = {row.output: row.drift for row in inspect(model, data=data).rows}
    result = calibrate(model, data, options=CalibrateOptions("single-pass"))
    for row in result.rows:
        np.testing.assert_allclose(row.drift.distance, drifts[row.output].distance, rtol=1e-12)
    sequential = calibrate(model, data)
    assert sequential.rows[0].drift.rms == pytest.approx(result.rows[0].drift.rms)
    assert sequential.rows[1].drift.rms != pytest.approx(result.rows[1].drift.rms)


def test_only_statistics_change_and_keep_their_names(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual(), path)
    result = calibrate(path, images())
    made = onnx.load(tmp_path / "model.calibrated.onnx")
    old = onnx.load(path)
    assert result.output.path == str(tmp_path / "model.calibrated.onnx")
    assert [n.SerializeToString() for n in made.graph.node] == [n.SerializeToString() for n in old.graph.node]
    changed = [a.name for a, b in zip(old.graph.initializer, made.graph.initializer, strict=True) if a != b]
    assert sorted(changed) == sorted(f"{p}_{part}" for p in "abd" for part in ("mean", "var"))
    with pytest.raises(BnfoldError, match="already exists"):
        calibrate(path, images())


def test_layers_that_share_statistics_part():
    model = residual()
    for n in model.graph.node[4:5]:
        n.input[3], n.input[4] = "a_mean", "a_var"
    made = calibrate(model, images()).model
    assert max(row.drift.rms for row in inspect(made, data=images()).rows) < 1e-6
    assert not {"b_mean", "b_var"} & {name for n in made.graph.node for name in n.input}


@pytest.mark.parametrize("opset", [8, 9, 13, 14, 17])
def test_training_mode_is_frozen_on_request(opset):
    model = residual(opset=opset)
    for n in model.graph.node:
        if n.op_type == "BatchNormalization":
            if opset >= 14:
                n.attribute.append(helper.make_attribute("training_mode", 1))
            n.output.extend([f"{n.output[0]}_m", f"{n.output[0]}_v"])
    with pytest.raises(InputError, match="'a_bn' and 2 more are in training mode") as caught:
        calibrate(model, images())
    assert "--freeze-training-mode" in caught.value.hint
    made = calibrate(model, images(), options=CalibrateOptions(freeze=True)).model
    onnx.checker.check_model(made, full_check=True)
    rows = inspect(made, data=images()).rows
    assert not any("training-mode" in row.warnings for row in rows)
    assert max(row.drift.rms for row in rows) < 1e-6


def test_operators_that_onnxruntime_no_longer_has_are_undecided():
    with pytest.raises(InconclusiveError, match="onnxruntime can't load the model"):
        calibrate(residual(opset=6), images(), options=CalibrateOptions(freeze=True))


def test_drift_of_a_layer_in_training_mode_leaves_the_others_right():
    """A layer that trains normalises by the batch, and so do those behind it see it."""
    model = residual()
    model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    model.graph.node[1].output.extend(["moved_mean", "moved_var"])
    data = images()
    found = {row.output: row.drift for row in inspect(model, data=data, batch=20).rows}
    frozen = residual()
    for name, array in zip(("a_mean", "a_var"), statistics_in(calibrate(frozen, data).model)["a"], strict=True):
        next(t for t in frozen.graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(array, name))
    expected = {row.output: row.drift for row in inspect(frozen, data=data, batch=20).rows}
    np.testing.assert_allclose(found["b"].distance, expected["b"].distance, rtol=1e-4)


def test_layers_inside_of_subgraphs_are_left(samples):
    data = {"x": np.ones((2, 3, 6, 6), "f4"), "flag": np.array([True, False])}
    inside = [node for scope in OnnxGraphs(onnx.load(samples / "if_branches.onnx")).scopes[1:] for node in scope.nodes]
    assert sum(node.op == "BatchNormalization" for node in inside) == 2
    with pytest.raises(InconclusiveError, match="inside of a subgraph"):
        calibrate(samples / "if_branches.onnx", data)


def test_layers_before_and_behind_an_if():
    """The branches read a value of the graph around them, which has to reach their level."""
    model = residual()
    branch = helper.make_graph(
        [node("Add", ["a", "c"], ["inner"])], "branch", [], [helper.make_empty_tensor_value_info("inner")]
    )
    other = helper.make_graph(
        [node("Sub", ["a", "c"], ["outer"])], "other", [], [helper.make_empty_tensor_value_info("outer")]
    )
    condition = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(condition)
    model.graph.node[2].CopyFrom(node("If", ["yes"], ["r"], then_branch=branch, else_branch=other))
    made = calibrate(model, images()).model
    rows = inspect(made, data=images()).rows
    assert len(rows) == 3
    assert max(row.drift.rms for row in rows) < 1e-6


def test_a_decomposed_one_is_left_and_says_why():
    held = {
        "g": np.array([[2.0], [3.0], [4.0]], "f4")[..., None],
        "t": np.array([[1.0], [2.0], [3.0]], "f4")[..., None],
    }
    nodes = [
        bn_node("x", "a", "a"),
        node("Sigmoid", ["a"], ["n"]),
        node("Mul", ["n", "g"], ["p"]),
        node("Add", ["p", "t"], ["y"]),
    ]
    arrays = {**held, **batch_norm("a", 3)}
    graph = helper.make_graph(
        nodes, "g", [tensor("x", ["N", 3, 6, 6])], [tensor("y", ["N", 3, 6, 6])],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rows = calibrate(model, images()).rows
    assert [(row.status, row.reason and row.reason["code"]) for row in rows] == [
        ("calibrated", None),
        ("kept", "decomposed"),
    ]


def test_external_data_stays_external(tmp_path, samples):
    import shutil

    for name in ("external_data.onnx", "external_data.data"):
        shutil.copy(samples / name, tmp_path)
    shape = [
        d.dim_value
        for d in onnx.load(tmp_path / "external_data.onnx", load_external_data=False)
        .graph.input[0]
        .type.tensor_type.shape.dim
    ]
    data = np.random.default_rng(0).normal(size=(shape[0] or 4, *shape[1:])).astype("f4")
    calibrate(tmp_path / "external_data.onnx", data, tmp_path / "out.onnx")
    rows = inspect(tmp_path / "out.onnx", data=data).rows
    assert max(row.drift.rms for row in rows if row.drift) < 1e-6


def test_random_networks(tmp_path):
    """What has been calibrated has not drifted, whatever the graph."""
    import random

    from tests.fuzz.networks import network

    seen = 0
    for seed in range(60):
        model = network(random.Random(seed).randrange)
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
        data = np.random.default_rng(seed).normal(size=(3 * shape[0], *shape[1:])).astype(kind)
        try:
            result = calibrate(model, data)
        except InconclusiveError:
            continue
        done = {row.output for row in result.rows if row.status == "calibrated"}
        for row in inspect(result.model, data=data).rows:
            if row.output in done and kind == np.float32:
                assert row.drift.rms < 1e-3, (seed, row.name)
                seen += 1
    assert seen > 30


def test_a_statistic_that_overflows_leaves_its_layer_and_those_behind_see_that():
    held = {**batch_norm("a", 3, dtype="float16"), **batch_norm("b", 3, dtype="float16")}
    held["a_scale"] = np.full(3, 0.001, "f2")
    nodes = [bn_node("x", "a", "a"), node("Sigmoid", ["a"], ["s"]), bn_node("s", "y", "b")]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype("f2"))
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    shape = ["N", 3, 6, 6]
    graph = helper.make_graph(nodes, "g", [tensor("x", shape, kind)], [tensor("y", shape, kind)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = (images() * 300).astype("f2")
    result = calibrate(model, data)
    assert [(row.status, row.reason and row.reason["code"]) for row in result.rows] == [
        ("kept", "overflow"),
        ("calibrated", None),
    ]
    assert inspect(result.model, data=data).rows[1].drift.rms < 5e-3


def test_a_layer_that_normalises_a_constant_is_left():
    model = residual()
    model.graph.initializer.append(numpy_helper.from_array(images(1)[:, :1].repeat(4, 1), "k"))
    model.graph.node.insert(0, bn_node("k", "kb", "a"))
    model.graph.node[-2].input[1] = "kb"
    result = calibrate(model, images())
    assert [row.status for row in result.rows] == ["kept", "calibrated", "calibrated", "calibrated"]
    assert result.rows[0].reason["code"] == "dynamic-weights"


def test_old_models_list_their_initializers_as_inputs():
    model = residual(opset=9)
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    made = calibrate(model, images()).model
    assert max(row.drift.rms for row in inspect(made, data=images()).rows) < 1e-6
