"""Running statistics: health, drift and calibration, against numpy, torch and a network that was really spoilt."""

import json

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, node, tensor
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

pytest.importorskip("onnxruntime")

import jsonschema
from test_cli import SCHEMA

from bnfold.api import calibrate, fold, inspect
from bnfold.batchnorm import BatchNorm, Statistics, batch_statistics, per_channel, training_step
from bnfold.cli import main
from bnfold.errors import BnfoldError, InputError, UndecidedError
from bnfold.graph.onnx import OnnxGraphs
from bnfold.options import CalibrateOptions
from bnfold.statistics import health, moments, spool
from bnfold.statistics.results import Drift


def accuracy(model, folder):
    import onnxruntime

    with np.load(folder / "digits.npz") as data:
        images, labels = data["image"], data["label"]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return int((session.run(None, {"image": images})[0].argmax(axis=1) == labels).sum())


def statistics_in(path):
    """Mean and variance of every BatchNormalization of a model, by the name of its output."""
    model = onnx.load(path) if not isinstance(path, onnx.ModelProto) else path
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    return {n.output[0]: (held[n.input[3]], held[n.input[4]]) for n in nodes}


def residual(dtype="float32", opset=17, rows="N"):
    """Two BatchNorms in a row around a residual sum, one on a branch, and a shortcut past all of them."""
    rng = np.random.default_rng(3)
    held = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(dtype),
        "v": rng.normal(size=(4, 4, 1, 1)).astype(dtype),
        **{k: v for p in ("a", "b", "d") for k, v in batch_norm(p, 4, seed=len(p), dtype=dtype).items()},
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        bn_node("c", "a", "a"),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "v"], ["e"]),
        bn_node("e", "b", "b"),
        node("Add", ["b", "c"], ["s"]),
        bn_node("s", "y", "d"),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", [rows, 3, 6, 6], kind)], [tensor("y", [rows, 4, 6, 6], kind)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def images(rows=20, dtype="float32", seed=0):
    return (np.random.default_rng(seed).normal(size=(rows, 3, 6, 6)) * 2 + 1).astype(dtype)


# --- the mathematics

arrays = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(arrays, st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_pooled_batches_are_one_batch(rng, sizes, offset, width):
    batches = [rng.normal(offset, width, (rows, 3, 2)) for rows in sizes]
    estimator = moments.Population()
    for batch in batches:
        estimator.add(moments.statistics_of(batch, (0, 2)))
    found, whole = estimator.result(), np.concatenate(batches)
    if not whole.size:
        assert found is None
        return
    expected = batch_statistics(whole, (0, 2))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-7, atol=width * (1e-9 * width + 1e-14 * abs(offset)))


def test_a_large_activation_is_pooled_piece_by_piece(monkeypatch):
    x = np.random.default_rng(0).normal(3, 2, (50, 4, 5, 5))
    expected = batch_statistics(x, (0, 2, 3))
    monkeypatch.setattr(moments, "PIECE", 700)
    found = moments.statistics_of(x, (0, 2, 3))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-13)


@pytest.mark.parametrize("convention", ["onnx", "torch"])
def test_a_moving_average_is_what_training_keeps(convention):
    rng = np.random.default_rng(1)
    bn = BatchNorm.fresh(3)
    estimator = moments.MovingAverage(bn.mean, bn.var, 0.3, convention)
    for rows in (4, 7, 2):
        x = rng.normal(2, 3, (rows, 3, 5))
        _, bn = training_step(x, bn, momentum=0.3, convention=convention)
        estimator.add(batch_statistics(x, per_channel(3)))
    np.testing.assert_allclose(estimator.result().mean, bn.mean, rtol=1e-14)
    np.testing.assert_allclose(estimator.result().var, bn.var, rtol=1e-14)


def test_distance_counts_stored_deviations():
    stored = (np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 4.0, 1.0, np.nan]))
    found = Statistics(np.array([0.0, 4.0, 0.0, 0.0]), np.array([1.0, 4.0, 9.0, 1.0]), 10)
    np.testing.assert_allclose(moments.distance(stored, found, 0.0), [0, 2, 2, np.inf])


def test_what_does_not_fit_into_memory_waits_in_files(tmp_path):
    import ml_dtypes

    entries = [{"a": np.full((2, 3), k, ml_dtypes.bfloat16), "b": np.array([k])} for k in range(4)]
    waiting = spool.Spool(tmp_path, limit=30)
    for entry in entries:
        waiting.add(entry)
    assert len(list(tmp_path.iterdir())) == 6
    for entry, found in zip(entries, waiting, strict=True):
        assert found["a"].dtype == entry["a"].dtype
        assert all((found[name] == entry[name]).all() for name in entry)
    assert not list(tmp_path.iterdir())


# --- health


def bn_with(**changed):
    parts = {"scale": np.ones(4), "bias": np.zeros(4), "mean": np.full(4, 0.1), "var": np.full(4, 0.5)}
    return BatchNorm(**{**parts, **{name: np.array(values, float) for name, values in changed.items()}})


@pytest.mark.parametrize(
    ("bn", "codes"),
    [
        (bn_with(), {}),
        (BatchNorm.fresh(4), {"never-updated": ()}),
        (bn_with(mean=[0, 0, 0, 0]), {}),
        (bn_with(mean=[0, 0, 0, 0], var=[1, 1, 1, 1.0001]), {}),
        (bn_with(var=[0.5, np.inf, 0.5, 0.5]), {"non-finite": (1,)}),
        (bn_with(scale=[1, np.nan, 1, 1]), {"non-finite": (1,)}),
        (bn_with(var=[0.5, 0.5, -1e-9, 0.5]), {"negative-variance": (2,)}),
        (bn_with(var=[0, 0.5, 0.5, 0.5]), {"zero-variance": (0,)}),
        (bn_with(var=[1e-9, 1.1e-8, 0.5, 0.5]), {"tiny-variance": (0,)}),
        (bn_with(scale=[1, 0, 1e-7, 1e-5]), {"dead-channels": (1, 2)}),
        (bn_with(scale=[0, 0, 0, 0]), {"dead-channels": (0, 1, 2, 3)}),
        (bn_with(scale=[1e5, 1, 1, 1]), {"huge-gain": (0,)}),
        (
            bn_with(mean=np.ones((4, 2)), var=[[1, 0]] + [[1, 1]] * 3, scale=np.ones((4, 2)), bias=np.ones((4, 2))),
            {"zero-variance": (0,)},
        ),
    ],
)  # fmt: skip
def test_findings(bn, codes):
    assert {finding.code: finding.channels for finding in health.of_parameters(bn)} == codes


def test_a_model_is_told_its_findings():
    model = residual()
    for t in model.graph.initializer:
        if t.name == "a_var":
            t.CopyFrom(numpy_helper.from_array(np.array([-2, 0, 1, 1], "f4"), "a_var"))
    row = inspect(model).rows[0]
    assert row.status == "kept"
    assert row.warnings == ["negative-variance", "zero-variance"]


def test_every_finding_is_explained():
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs/statistics.md").read_text()
    assert all(f"`{code}`" in page for code in health.FINDINGS)


# --- calibration


def test_the_spoilt_digits_come_back(tmp_path, samples):
    """The figures of docs/statistics.md."""
    spoilt, data = samples / "digits_spoilt.onnx", samples / "digits_train.npz"
    before = spoilt.read_bytes()
    found = inspect(spoilt, data=data)
    assert all("drift" in row.warnings for row in found.rows)
    assert not any(row.warnings for row in inspect(samples / "digits.onnx", data=data).rows)
    calibrate(spoilt, data, tmp_path / "sequential.onnx")
    calibrate(spoilt, data, tmp_path / "single.onnx", CalibrateOptions("single-pass"))
    fold(tmp_path / "sequential.onnx", tmp_path / "folded.onnx")
    assert accuracy(samples / "digits.onnx", samples) == 358
    assert accuracy(spoilt, samples) < 72
    assert accuracy(tmp_path / "sequential.onnx", samples) >= 355
    assert accuracy(tmp_path / "folded.onnx", samples) >= 355
    assert 320 < accuracy(tmp_path / "single.onnx", samples) < 350
    assert spoilt.read_bytes() == before


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
    with pytest.raises(BnfoldError, match="exists already"):
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
    with pytest.raises(UndecidedError, match="onnxruntime can't load the model"):
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


def test_layers_inside_and_behind_nested_graphs(samples):
    data = {"x": np.ones((2, 3, 6, 6), "f4"), "flag": np.array([True, False])}
    model = onnx.load(samples / "if_branches.onnx")
    graphs = OnnxGraphs(model)
    inside = [n for scope in graphs.scopes[1:] for n in scope.nodes if n.op == "BatchNormalization"]
    assert inside
    outside = [n for n in graphs.scopes[0].nodes if n.op == "BatchNormalization"]
    if not outside:
        with pytest.raises(UndecidedError, match="nested graph"):
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
        ("left", "decomposed"),
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

    from tests.campaigns.networks import network

    seen = 0
    for seed in range(60):
        model = network(random.Random(seed).randrange)
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
        data = np.random.default_rng(seed).normal(size=(3 * shape[0], *shape[1:])).astype(kind)
        try:
            result = calibrate(model, data)
        except UndecidedError:
            continue
        done = {row.output for row in result.rows if row.status == "calibrated"}
        for row in inspect(result.model, data=data).rows:
            if row.output in done and kind == np.float32:
                assert row.drift.rms < 1e-3, (seed, row.name)
                seen += 1
    assert seen > 30


# --- torch


def network(shared=False):
    from torch import nn

    bn = nn.BatchNorm2d(4)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), bn, nn.ReLU(), nn.Conv2d(4, 4, 3), bn if shared else nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = network()
    with torch.no_grad():
        for index in range(3):
            model(torch.from_numpy(images(16, seed=index)))
    return model


def exported(model):
    import torch

    return torch.export.export(model, (torch.zeros(4, 3, 6, 6),), dynamic_shapes=({0: torch.export.Dim("N")},))


def running(state):
    return {name: tensor for name, tensor in state.items() if "running" in name}


@pytest.mark.parametrize("momentum", [None, 0.1, 0.9])
def test_moving_averages_are_those_of_torch(trained, momentum):
    """`update_bn` where it is defined (momentum None), and training's own steps."""
    import copy

    import torch

    batches = [torch.from_numpy(images(8, seed=10 + k)) for k in range(5)]
    expected = copy.deepcopy(trained)
    for part in expected.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = momentum
    if momentum is None:
        torch.optim.swa_utils.update_bn(batches, expected)
    else:
        expected.train()
        with torch.no_grad():
            for batch in batches:
                expected(batch)
    options = CalibrateOptions("moving-average", momentum)
    found = running(calibrate(exported(trained.eval()), batches, options=options).model.state_dict)
    for name, kept in running(expected.state_dict()).items():
        torch.testing.assert_close(found[name], kept, rtol=1e-5, atol=1e-6)


def test_the_pooled_variance_is_exact_where_torch_only_averages(trained):
    import copy

    import torch

    batches = [torch.from_numpy(images(rows, seed=rows)) for rows in (9, 2, 3, 14)]
    whole = torch.cat(batches)
    averaged = copy.deepcopy(trained)
    torch.optim.swa_utils.update_bn(batches, averaged)
    found = running(calibrate(exported(trained.eval()), batches).model.state_dict)
    with torch.no_grad():
        activation = trained[0](whole).double()
    exact = activation.var((0, 2, 3), correction=0)
    torch.testing.assert_close(found["1.running_var"].double(), exact, rtol=1e-6, atol=0)
    assert not torch.allclose(averaged[1].running_var.double(), exact, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_formats_agree(trained, tmp_path):
    import torch

    program = exported(trained.eval())
    data = images(30)
    found = running(calibrate(program, data).model.state_dict)
    torch.onnx.export(
        trained, (torch.zeros(4, 3, 6, 6),), str(tmp_path / "m.onnx"), dynamo=False, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE, dynamic_axes={"input": {0: "N"}}, input_names=["input"],
    )  # fmt: skip
    result = calibrate(tmp_path / "m.onnx", data, tmp_path / "out.onnx")
    assert result.calibrated == 3
    pairs = list(statistics_in(tmp_path / "out.onnx").values())
    for (mean, var), layer in zip(pairs, ("1", "4", "8"), strict=True):
        np.testing.assert_allclose(mean, found[f"{layer}.running_mean"].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(var, found[f"{layer}.running_var"].numpy(), rtol=1e-4)


def test_a_layer_that_is_called_twice_gets_statistics_for_each_call():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    result = calibrate(exported(network(shared=True).eval()), images(30))
    assert result.calibrated == 3
    assert max(row.drift.rms for row in inspect(result.model, data=images(30)).rows) < 1e-6


def test_a_program_in_training_mode(trained, tmp_path):
    import copy

    import torch

    program = exported(copy.deepcopy(trained).train())
    torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(InputError, match="in training mode"):
        calibrate(tmp_path / "train.pt2", images())
    calibrate(tmp_path / "train.pt2", images(), options=CalibrateOptions(freeze=True))
    expected = calibrate(exported(trained.eval()), images()).model
    made = torch.export.load(tmp_path / "train.calibrated.pt2")
    x = torch.from_numpy(images(seed=5))
    torch.testing.assert_close(made.module()(x), expected.module()(x))
    assert inspect(tmp_path / "train.calibrated.pt2").foldable == 3


def test_a_program_that_works_in_place():
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.a(x)
            z = y * 2
            y.add_(1)
            return self.b(y) + z

    torch.manual_seed(0)
    made = calibrate(exported(Net().eval()), images(), options=CalibrateOptions(batch=6)).model
    drifts = [row.drift.rms for row in inspect(made, data=images()).rows if row.drift]
    assert len(drifts) == 2
    assert max(drifts) < 1e-6
    with torch.no_grad():  # the second layer sees the first one's output plus one: mean one more than its bias of zero
        torch.testing.assert_close(made.state_dict["b.running_mean"], torch.ones(3), rtol=0, atol=1e-5)


class Overwrites:
    """Forwards of networks that overwrite what a BatchNorm reads, before it does."""

    @staticmethod
    def a_view_of_its_input(net, x):
        y = net.c(x)
        y[:, :, :3].mul_(7)
        return net.a(y)

    @staticmethod
    def what_it_made(net, x):
        y = net.a(net.c(x))
        y[:, :, :3].mul_(7)
        return net.b(y)

    @staticmethod
    def the_base_of_its_input(net, x):
        y = net.c(x)
        v = y[:, :, :3]
        y.mul_(3)
        return net.b(net.a(v))

    @staticmethod
    def nothing_but_reads_the_statistics(net, x):
        return net.b(net.a(net.c(x)) + net.a.running_mean.view(1, -1, 1, 1) * 2)

    @staticmethod
    def nothing_but_one_tensor_is_two_operands(net, x):
        from torch.nn import functional

        return functional.batch_norm(net.c(x), net.a.running_mean, net.a.running_var, net.a.running_var, net.a.bias)


@pytest.mark.parametrize("name", [name for name in vars(Overwrites) if not name.startswith("_")])
def test_programs_that_overwrite_or_share(name):
    """The statistics are those of what eager torch itself feeds each BatchNorm of the calibrated program."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return getattr(Overwrites, name)(self, x)

    torch.manual_seed(0)
    x = torch.from_numpy(images())
    program = torch.export.export(Net().eval(), (x,))
    parameters = {key: value.clone() for key, value in program.state_dict.items() if "running" not in key}
    made = calibrate(program, [x]).model
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            if "batch_norm" in str(n.target):
                args = [self.env[a] if isinstance(a, torch.fx.Node) else a for a in n.args]
                seen.append((args[0].double().clone(), args[3].clone(), args[4].clone()))
            return super().run_node(n)

    with torch.no_grad():
        Watch(made.graph_module).run(*made._graph_module_flat_inputs((x,), {}))
    assert seen
    for fed, mean, var in seen:
        torch.testing.assert_close(mean.double(), fed.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(var.double(), fed.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
    for key, value in parameters.items():
        torch.testing.assert_close(made.state_dict[key], value, rtol=0, atol=0)


def test_data_may_be_tensors_of_any_type():
    torch = pytest.importorskip("torch")
    program = torch.export.export(network().eval().bfloat16(), (torch.zeros(4, 3, 6, 6, dtype=torch.bfloat16),))
    data = torch.from_numpy(images(8)).bfloat16()
    assert calibrate(program, [data[:4], data[4:]]).calibrated == 3


# --- data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"z": images()}, "nothing for the input 'x'"),
        (images().astype("i4"), "takes float32, not int32"),
        (np.float32(1), "a single number"),
        ([], "no data"),
        (np.zeros((0, 3, 6, 6), "f4"), "no data"),
        ("missing.npz", "No such file"),
    ],
)
def test_data_that_do_not_fit(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        calibrate(residual(), data)


@pytest.mark.parametrize("shape", [(4, 5, 6, 6), (4, 6, 6, 3), (3, 6, 6)])
def test_shapes_that_do_not_fit_are_told(shape):
    with pytest.raises(InputError, match=r"takes \[any, 3, 6, 6\], not \["):
        calibrate(residual(), np.zeros(shape, "f4"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not an array"),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(20, 3, 6, 6)", b"(99999999999,)")),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(20, 3, 6, 6)", b"(-1, 3, 6, 6)")),
        lambda path: path.write_bytes(
            path.read_bytes().replace(b"'shape': (20, 3, 6, 6), }", b"'shape': ((((((((((((((( ")
        ),
        lambda path: np.save(path, np.array([{}, None], object), allow_pickle=True),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_data_are_refused(damage, suffix, tmp_path):
    path = tmp_path / "d.npy"
    np.save(path, images())
    damage(path)
    if suffix == "npz":
        import zipfile

        inner = path.read_bytes()
        path = tmp_path / "d.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", inner)
        if len(inner) % 2:
            path.write_bytes(path.read_bytes()[:60] + b"\xff" * 9 + path.read_bytes()[69:])
    with pytest.raises(InputError) as caught:
        calibrate(residual(), path)
    assert "\n" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value) or "object" in str(caught.value).lower()


def test_inputs_that_have_no_rows_are_fed_with_every_batch():
    model = residual()
    model.graph.node[2].CopyFrom(node("Mul", ["a", "t"], ["r"]))
    model.graph.input.append(tensor("t", []))
    data = {"x": images(), "t": np.float32(2.0)}
    result = calibrate(model, data, options=CalibrateOptions(batch=7))
    assert result.data["batches"] == 3
    assert max(row.drift.rms for row in inspect(result.model, data=data).rows) < 1e-6


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
        ("left", "overflow"),
        ("calibrated", None),
    ]
    assert inspect(result.model, data=data).rows[1].drift.rms < 5e-3


def test_a_layer_that_normalises_a_constant_is_left():
    model = residual()
    model.graph.initializer.append(numpy_helper.from_array(images(1)[:, :1].repeat(4, 1), "k"))
    model.graph.node.insert(0, bn_node("k", "kb", "a"))
    model.graph.node[-2].input[1] = "kb"
    result = calibrate(model, images())
    assert [row.status for row in result.rows] == ["left", "calibrated", "calibrated", "calibrated"]
    assert result.rows[0].reason["code"] == "dynamic-weights"


def test_old_models_list_their_initializers_as_inputs():
    model = residual(opset=9)
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    made = calibrate(model, images()).model
    assert max(row.drift.rms for row in inspect(made, data=images()).rows) < 1e-6


def test_numbers_that_are_not_finite_are_undecided():
    data = images()
    data[3, 1, 2, 2] = np.nan
    with pytest.raises(UndecidedError, match="'a_bn' is not finite"):
        calibrate(residual(), data)


@pytest.mark.parametrize("kind", ["npy", "npz", "folder", "iterator", "tuples", "float64", "mapping"])
def test_ways_to_give_data(kind, tmp_path):
    data = images()
    given = {
        "npy": lambda: np.save(tmp_path / "d.npy", data) or tmp_path / "d.npy",
        "npz": lambda: np.savez(tmp_path / "d.npz", x=data, label=np.arange(20)) or str(tmp_path / "d.npz"),
        "iterator": lambda: iter([data[:12], data[12:]]),
        "tuples": lambda: [(data[:12], np.arange(12)), (data[12:], np.arange(8))],
        "float64": lambda: data.astype("f8"),
        "mapping": lambda: {"x": data},
    }
    if kind == "folder":
        (tmp_path / "d").mkdir()
        for index, part in enumerate(np.array_split(data, 11)):
            np.save(tmp_path / "d" / f"batch{index}.npy", part)
        (tmp_path / "d" / "notes.txt").write_text("not data")
        source = tmp_path / "d"
    else:
        source = given[kind]()
    result = calibrate(residual(), source)
    assert result.data["rows"] == 20
    for name, pair in statistics_in(result.model).items():
        np.testing.assert_allclose(pair, statistics_in(calibrate(residual(), data).model)[name], rtol=1e-5)


def test_rows_that_fill_no_batch_are_told():
    result = calibrate(residual(rows=8), images(20))
    assert result.data == {"source": "<data>", "rows": 16, "batches": 2, "left_out": 4}
    with pytest.raises(InputError, match="takes 8 rows at once"):
        calibrate(residual(rows=8), images(20), options=CalibrateOptions(batch=5))


# --- the command line


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_json_of_calibrate_and_of_drift(tmp_path, samples):
    words = (samples / "digits_spoilt.onnx", "--data", samples / "digits_train.npz", "--json", "-")
    result = call("calibrate", *words, "-o", tmp_path / "out.onnx", "--momentum", "0.9")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    assert (found["mode"], found["momentum"], found["summary"]["calibrated"]) == ("moving-average", 0.9, 3)
    found = json.loads(call("inspect", *words).stdout)
    jsonschema.validate(found, SCHEMA)
    assert [row["drift"]["count"] for row in found["batch_norms"]] == [91968, 22992, 1437]
    assert found["batch_norms"][0]["health"][0]["code"] == "drift"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--momentum", "0.9", "--single-pass"), 2, "exclude each other"),
        (("--momentum", "2"), 2, "between 0 and 1"),
        (("--momentum", "x"), 2, "not a number"),
        (("--convention", "torch"), 2, "goes with --momentum"),
        (("--batch-size", "0"), 2, "batch-size"),
        (("-o", "conv.onnx"), 2, "is the model itself"),
        (("-o", "no/where.onnx"), 5, "No such file"),
        (("-o", "x.pt2"), 2, "what is written is ONNX"),
    ],
)
def test_wrong_calls(words, code, line, tmp_path, samples, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conv.onnx").write_bytes((samples / "conv.onnx").read_bytes())
    np.save("d.npy", np.ones((4, 3, 8, 8), "f4"))
    result = call("calibrate", "conv.onnx", "--data", "d.npy", *words)
    assert result.exit_code == code, result.output
    assert line in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conv.onnx", "d.npy"]


def test_plots_are_drawn(tmp_path, samples):
    pytest.importorskip("matplotlib")
    words = (samples / "digits_spoilt.onnx", "--data", samples / "digits_train.npz", "--quiet")
    assert call("inspect", *words, "--plot", tmp_path / "drift.svg").exit_code == 0
    assert "</svg>" in (tmp_path / "drift.svg").read_text()
    assert call("calibrate", *words, "--dry-run", "--plot", tmp_path / "moved.png").exit_code == 0
    assert (tmp_path / "moved.png").read_bytes().startswith(b"\x89PNG")
    assert call("inspect", samples / "conv.onnx", "--plot", tmp_path / "x.svg").exit_code == 2


def test_drift_is_the_layer_s_as_a_whole():
    drift = Drift(np.array([0.0, 0.0, 0.0, 0.9]), 10)
    assert drift.rms == pytest.approx(0.45)
    assert drift.findings == []
    assert Drift(np.array([0.0, 0.8, 0.9]), 10).findings == [health.Finding("drift", (1, 2))]
