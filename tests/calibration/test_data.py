"""What data calibration takes and refuses, and the command line."""

import json

import numpy as np
import pytest

from sample_models.build import node, tensor

pytest.importorskip("onnxruntime")

import jsonschema

from bnfold.api import calibrate, inspect
from bnfold.errors import InconclusiveError, InputError
from bnfold.options import CalibrateOptions
from tests.calibration.models import images, residual, statistics_in
from tests.support import SCHEMA, call


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"z": images()}, "nothing for the input 'x'"),
        (images().astype("i4"), "takes float32, not int32"),
        (np.float32(1), "a single number"),
        ([], "no data"),
        (None, "a NoneType is no data"),
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


def test_inputs_that_have_no_rows_are_fed_with_every_batch():
    model = residual()
    model.graph.node[2].CopyFrom(node("Mul", ["a", "t"], ["r"]))
    model.graph.input.append(tensor("t", []))
    data = {"x": images(), "t": np.float32(2.0)}
    result = calibrate(model, data, options=CalibrateOptions(batch=7))
    assert result.data["batches"] == 3
    assert max(row.drift.rms for row in inspect(result.model, data=data).rows) < 1e-6


def test_numbers_that_are_not_finite_are_undecided():
    data = images()
    data[3, 1, 2, 2] = np.nan
    with pytest.raises(InconclusiveError, match="'a_bn' is not finite"):
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


def test_json_of_calibrate_and_of_drift(tmp_path, samples):
    words = (samples / "digits_corrupted.onnx", "--data", samples / "digits_train.npz", "--json", "-")
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
        (("-o", "no/where.onnx"), 5, "does not exist"),
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
    words = (samples / "digits_corrupted.onnx", "--data", samples / "digits_train.npz", "--quiet")
    assert call("inspect", *words, "--plot", tmp_path / "drift.svg").exit_code == 0
    assert "</svg>" in (tmp_path / "drift.svg").read_text()
    assert call("calibrate", *words, "--dry-run", "--plot", tmp_path / "moved.png").exit_code == 0
    assert (tmp_path / "moved.png").read_bytes().startswith(b"\x89PNG")
    assert call("inspect", samples / "conv.onnx", "--plot", tmp_path / "x.svg").exit_code == 2
