"""What an attestation is about: every file that a model's numbers come from, as it was read."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.cli.main import main
from bnfold.errors import InputError
from bnfold.io.source import FileSource
from bnfold.report.formats.registry import render

CHANNELS = 24


def conv(source, at):
    rng = np.random.default_rng(at)
    weight = rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype("f4")
    arrays = [weight, *(rng.uniform(1, 2, CHANNELS).astype("f4") for _ in range(4))]
    names = [f"{name}{at}" for name in "wsbmv"]
    held = [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
    nodes = [
        helper.make_node("Conv", [source, names[0]], [f"c{at}"]),
        helper.make_node("BatchNormalization", [f"c{at}", *names[1:]], [f"y{at}"]),
    ]
    return nodes, held


@pytest.fixture
def folder(tmp_path):
    """A model with its weights in two files, one of them in a folder."""
    parts = [conv("x", 0), conv("y0", 1)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 2, 2]) for name in ("x", "y1")]
    held = [tensor for _, more in parts for tensor in more]
    nodes = [node for more, _ in parts for node in more]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "more").mkdir()
    for name, location in (("w0", "m.data"), ("w1", "more/m.data")):
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        (tmp_path / location).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path


def digests(folder, *names):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def attested(path):
    """The digests of subjects and of what was compared with, by name."""
    shown_text = json.loads(Path(path).read_text())
    parts = shown_text["subject"], [entry for entry in shown_text["predicate"]["configuration"] if "digest" in entry]
    for entries in parts:
        assert len({entry["name"] for entry in entries}) == len(entries)
    return [{entry["name"]: entry["digest"]["sha256"] for entry in entries} for entries in parts]


def call(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output


ORIGINAL = ("m.onnx", "m.data", "more/m.data")


@pytest.mark.parametrize("more", [(), ("--jobs", "1")], ids=["here", "in a worker"])
def test_fold_attests_all_files(folder, monkeypatch, more):
    monkeypatch.chdir(folder)
    (folder / "out").mkdir()
    target = "out/m.onnx"
    words = ("--output-dir", "out") if more else ("-o", target)
    call("fold", "m.onnx", *words, "--external-data", "always", "--report", "intoto=a.json", *more)
    subject, original = attested("a.json")
    assert subject == digests(folder / "out", "m.onnx", "m.onnx.data")
    assert original == digests(folder, *ORIGINAL)


def test_verify_attests_all_files(folder, monkeypatch):
    monkeypatch.chdir(folder)
    call("fold", "m.onnx", "-o", "f.onnx", "--external-data", "always")
    call("verify", "m.onnx", "f.onnx", "--report", "intoto=a.json")
    assert attested("a.json") == [digests(folder, "f.onnx", "f.onnx.data"), digests(folder, *ORIGINAL)]
    call("fold", "m.onnx", "-o", "g.onnx", "--external-data", "never", "--report", "intoto=b.json")
    assert attested("b.json") == [digests(folder, "g.onnx"), digests(folder, *ORIGINAL)]


def test_a_copy_is_attested_with_its_data(folder, monkeypatch):
    """Nothing folds: the copy reads the original's data, or a copy of that in its own folder."""
    monkeypatch.chdir(folder)
    model = onnx.load("m.onnx", load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.op_type, node.input[:] = "Relu", node.input[:1]
    onnx.save(model, "m.onnx")
    (folder / "out").mkdir()
    for target in ("n.onnx", "out/n.onnx"):
        call("fold", "m.onnx", "-o", target, "--report", "intoto=a.json")
        place = (folder / target).parent
        assert attested("a.json") == [digests(place, "n.onnx", *ORIGINAL[1:]), digests(folder, *ORIGINAL)]


def test_programs_have_no_other_files(samples, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    shutil.copy(samples / "digits.pt2", "m.pt2")
    call("fold", "m.pt2", "--no-verify", "--report", "intoto=a.json")
    assert attested("a.json") == [digests(tmp_path, "m.folded.pt2"), digests(tmp_path, "m.pt2")]
    call("fold", "m.pt2", "--no-verify", "--to", "onnx", "--external-data", "always", "--report", "intoto=b.json")
    subject, original = attested("b.json")
    assert subject == digests(tmp_path, "m.folded.onnx", "m.folded.onnx.data")
    assert original == digests(tmp_path, "m.pt2")


def test_data_is_digested_only_for_an_attestation(folder, monkeypatch):
    hashed = []
    digest = FileSource._hash
    monkeypatch.setattr(FileSource, "_hash", lambda self: hashed.append(Path(self.name).name) or digest(self))
    monkeypatch.chdir(folder)
    fold("m.onnx", "f.onnx", FoldOptions(external="always"))
    found = verify("m.onnx", "f.onnx")
    assert not [name for name in hashed if name.endswith(".data")]
    render("intoto", found)
    assert sorted(name for name in hashed if name.endswith(".data")) == ["f.onnx.data", "m.data", "m.data"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in a worker"])
def test_data_that_has_changed_since_is_not_attested(folder, monkeypatch, elsewhere):
    monkeypatch.chdir(folder)
    fold("m.onnx", "f.onnx", FoldOptions(external="always", verify=None))
    found = verify("m.onnx", "f.onnx")
    if elsewhere:
        found = pickle.loads(pickle.dumps(found))
    with (folder / "m.data").open("r+b") as file:
        file.write(b"other")
    with pytest.raises(InputError, match="changed"):
        render("intoto", found)
