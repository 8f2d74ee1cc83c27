"""Models of a fixed batch: all rows count where nothing depends on it, else it is said what is left out."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from sample_models.build import make, node, tensor, weights

pytest.importorskip("onnxruntime")

import jsonschema

from bnfold.api import calibrate, inspect
from bnfold.calibration.free_batch import rows_are_free
from bnfold.calibration.layers import Level
from bnfold.calibration.layers import held as held_
from bnfold.errors import InputError
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.options import CalibrateOptions
from tests.calibration.models import images, residual, statistics_in
from tests.support import SCHEMA, call


def bound(rows=8):
    """The same network, with its number of rows written down where the sum is."""
    model = residual(rows=rows)
    shape = np.array([rows, 4, 6, 6])
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    model.graph.node.insert(5, node("Reshape", ["b", "shape"], ["bound"]))
    model.graph.node[6].input[0] = "bound"
    return model


MODES = ["sequential", "single-pass", "moving-average"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [3, 6, 20])
def test_rows_that_are_merely_declared_leave_nothing_out(rows, mode):
    """The statistics are those of the same model with a free batch dimension, in batches of the same size."""
    options = CalibrateOptions(mode=mode, momentum=0.9 if mode == "moving-average" else None)
    found = calibrate(residual(rows=8), images(rows), options=options)
    assert found.data == {"source": "<data>", "rows": rows, "batches": -(-rows // 8), "left_out": 0}
    free = calibrate(residual(), images(rows), options=replace(options, batch=8))
    for name, pair in statistics_in(free.model).items():
        np.testing.assert_array_equal(statistics_in(found.model)[name], pair)


def test_a_declared_number_of_rows_can_be_another():
    found = calibrate(residual(rows=8), images(20), options=CalibrateOptions(batch=5))
    assert (found.data["rows"], found.data["batches"]) == (20, 4)
    with pytest.raises(InputError, match="takes 8 rows at once, not 5"):
        calibrate(bound(), images(20), options=CalibrateOptions(batch=5))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["array", "files", "batches"])
def test_rows_that_fill_no_batch_are_told(form, mode, tmp_path):
    """What is left of one file goes with the next; what is left of the last is left out, and that is said."""
    data = images(20)
    given = {"array": data, "batches": iter(np.array_split(data, 7)), "files": tmp_path / "d"}[form]
    if form == "files":
        given.mkdir()
        for index, part in enumerate(np.array_split(data, 7)):
            np.save(given / f"{index}.npy", part)
    options = CalibrateOptions(mode=mode, momentum=0.9 if mode == "moving-average" else None)
    result = calibrate(bound(), given, options=options)
    note = "the model takes 8 rows at once: 4 fill no batch and are left out"
    source = str(given) if form == "files" else "<data>"
    assert result.data == {"source": source, "rows": 16, "batches": 2, "left_out": 4, "note": note}
    whole = calibrate(bound(), data[:16], options=options)
    for name, pair in statistics_in(whole.model).items():
        np.testing.assert_array_equal(statistics_in(result.model)[name], pair)


def test_too_few_rows_are_refused_with_the_reason():
    for work in (calibrate, lambda model, data: inspect(model, data=data)):
        with pytest.raises(InputError, match="the model takes batches of 8 rows; the data have 7") as caught:
            work(bound(), images(7))
        assert "at least 8 rows" in caught.value.hint
    with pytest.raises(InputError, match="no data"):
        calibrate(bound(), images(0))


def test_what_is_left_out_is_in_the_text_and_the_json(tmp_path):
    onnx.save(bound(), tmp_path / "m.onnx")
    np.save(tmp_path / "d.npy", images(20))
    for command in (("calibrate", "--dry-run"), ("inspect",)):
        words = (*command, tmp_path / "m.onnx", "--data", tmp_path / "d.npy")
        assert "the model takes 8 rows at once: 4 fill no batch and are left out" in call(*words).stdout
        found = json.loads(call(*words, "--json", "-").stdout)
        jsonschema.validate(found, SCHEMA)
        assert (found["data"]["left_out"], found["data"]["rows"]) == (4, 16)
        assert "fill no batch" in found["data"]["note"]


def test_all_rows_count_for_the_drift_too():
    assert inspect(residual(rows=8), data=images(20)).data["left_out"] == 0
    count = [row.drift.count for row in inspect(residual(rows=8), data=images(20)).rows]
    assert count == [20 * 36] * 3


def test_what_is_given_whole_joins_no_other():
    """Rows of one file don't go with those of the next if another input has changed between them."""
    model = bound(4)
    model.graph.node[2].CopyFrom(node("Mul", ["a", "t"], ["r"]))
    model.graph.input.append(tensor("t", []))
    data = [{"x": images(6), "t": np.float32(t)} for t in (1.0, 2.0)]
    assert calibrate(model, data).data["rows"] == 8
    data[1]["t"] = data[0]["t"]
    assert calibrate(model, data).data["rows"] == 12


CUT = {"k": np.array([0]), "l": np.array([2])}

STEPS = {
    "flattened": (True, [node("Flatten", ["r"], ["f"])], {}),
    "reshaped by 0": (True, [node("Reshape", ["r", "k"], ["f"])], {"k": np.array([0, -1])}),
    "reshaped by -1": (True, [node("Reshape", ["r", "k"], ["f"])], {"k": np.array([-1, 144])}),
    "other rows": (False, [node("Reshape", ["r", "k"], ["f"])], {"k": np.array([-1, 72])}),
    "reshaped by 8": (False, [node("Reshape", ["r", "k"], ["f"])], {"k": np.array([8, -1])}),
    "by a shape": (False, [node("Shape", ["r"], ["s"]), node("Reshape", ["r", "s"], ["f"])], {}),
    "added": (True, [node("Add", ["r", "k"], ["f"])], {"k": np.ones((1, 4, 1, 1), "f4")}),
    "added to rows": (False, [node("Add", ["r", "k"], ["f"])], {"k": np.ones((8, 4, 1, 1), "f4")}),
    "divided by the rows": (False, [
        node("Shape", ["r"], ["s"]), node("Gather", ["s", "k"], ["g"]), node("Cast", ["g"], ["h"], to=1),
        node("Div", ["r", "h"], ["f"])], {"k": np.int64(0)}),
    "turned": (False, [
        node("Transpose", ["r"], ["t"], perm=[1, 0, 2, 3]), node("Transpose", ["t"], ["f"], perm=[1, 0, 2, 3])], {}),
    "kept in place": (True, [node("Transpose", ["r"], ["f"], perm=[0, 1, 3, 2])], {}),
    "mean": (True, [node("ReduceMean", ["r"], ["f"], axes=[2, 3])], {}),
    "mean of rows": (False, [node("ReduceMean", ["r"], ["f"], axes=[0, 2])], {}),
    "softmax": (True, [node("Softmax", ["r"], ["f"], axis=1)], {}),
    "softmax of rows": (False, [node("Softmax", ["r"], ["f"], axis=-4)], {}),
    "joined": (True, [node("Concat", ["r", "c"], ["f"], axis=1)], {}),
    "joined rows": (False, [node("Concat", ["r", "c"], ["f"], axis=0)], {}),
    "padded": (True, [node("Pad", ["r", "k"], ["f"])], {"k": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "more rows": (False, [node("Pad", ["r", "k"], ["f"])], {"k": np.array([0, 0, 0, 0, 1, 0, 0, 0])}),
    "cut": (True, [node("Slice", ["r", "k", "l", "a"], ["f"])], CUT | {"a": np.array([2])}),
    "fewer rows": (False, [node("Slice", ["r", "k", "l", "a"], ["f"])], CUT | {"a": np.array([0])}),
    "summed along rows": (False, [node("CumSum", ["r", "k"], ["f"])], {"k": np.int64(0)}),
    "larger": (True, [node("Resize", ["r", "", "k"], ["f"])], {"k": np.array([1, 1, 2, 2], "f4")}),
}  # fmt: skip


@pytest.mark.parametrize("kind", STEPS)
def test_only_what_provably_depends_on_no_number_of_rows_is_free(kind):
    free, nodes, held = STEPS[kind]
    first = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), *nodes, node("Identity", ["f"], ["g1"])]
    held = {**held, "w": weights(1, 4, 3, 1, 1)}
    model = make([*first, node("Identity", ["f"], ["y"])], [tensor("x", [8, 3, 6, 6])], [tensor("y", None)], held)
    graph = OnnxGraphs(model).scopes[0]
    level = Level([n for n in graph.nodes if n.op != "Shape" and not held_(n.output)])
    assert rows_are_free([level], graph.inputs) is free


@pytest.mark.parametrize("flat", [False, True])
def test_programs_of_a_fixed_batch(flat, tmp_path):
    """Layers alone take any rows; a view that has the rows written down does not, and that is said."""
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()]
    if flat:
        layers += [torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.BatchNorm1d(5)]
    torch.manual_seed(0)
    module = torch.nn.Sequential(*layers).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(8, 3, 6, 6),)), tmp_path / "m.pt2")
    for work in (
        lambda data: calibrate(tmp_path / "m.pt2", data, dry_run=True),
        lambda data: inspect(tmp_path / "m.pt2", data=data),
    ):
        found = work(images(20))
        assert (found.data["rows"], found.data["left_out"]) == ((16, 4) if flat else (20, 0))
        assert ("note" in found.data) is flat
        if flat:
            with pytest.raises(InputError, match="takes batches of 8 rows; the data have 5"):
                work(images(5))


@pytest.mark.parametrize("indices", [False, True])
def test_indices_of_a_pool_count_across_the_batch(indices):
    outputs = ["p", "at"] if indices else ["p"]
    model = make(
        [node("MaxPool", ["x"], outputs, kernel_shape=[2, 2])],
        [tensor("x", [4, 2, 4, 4])],
        [tensor(name, None, 7 if name == "at" else 1) for name in outputs],
        {},
    )
    graph = OnnxGraphs(model).scopes[0]
    assert rows_are_free([Level(graph.nodes)], graph.inputs) is not indices
