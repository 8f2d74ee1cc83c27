"""Reading and writing: nothing lost, nothing let in, whole or not at all."""

import io
import os
import shutil
import stat
import zipfile

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold
from bnfold.errors import InputError, OutputError, UsageError
from bnfold.io import save as save_module
from bnfold.io.external import external_tensors
from bnfold.io.load import load
from bnfold.io.save import staged
from bnfold.io.serialize import chunks, parts_of
from sample_models.build import write
from tests.support import assert_same, feeds_for, run

PLAIN = FoldOptions(verify=None)


@pytest.fixture
def external(tmp_path):
    return write("external_data", tmp_path)


def with_location(path, location, **entries):
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                entry.value = {"location": location, **entries}.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_a_model_with_nothing_to_fold_keeps_its_bytes(tmp_path, samples):
    for name in ("padded_conv_behind", "training_mode"):
        out = tmp_path / f"{name}.onnx"
        fold(samples / f"{name}.onnx", out, PLAIN)
        assert out.read_bytes() == (samples / f"{name}.onnx").read_bytes()


def test_external_data_stays_external_in_a_new_file(external):
    before = external.with_suffix(".data").read_bytes()
    out = external.with_name("out.onnx")
    fold(external, out)
    assert external.with_suffix(".data").read_bytes() == before
    folded = onnx.load(out, load_external_data=False)
    locations = {e.value for t in folded.graph.initializer for e in t.external_data if e.key == "location"}
    assert locations == {"out.onnx.data"}
    original = onnx.load(external)
    feeds = feeds_for(original)
    assert_same(run(original, feeds), run(onnx.load(out), feeds))


def test_a_data_file_in_use_is_never_replaced(external):
    out = external.with_name("out.onnx")
    fold(external, out, PLAIN)
    first = (external.parent / "out.onnx.data").read_bytes()
    fold(external, out, PLAIN, force=True)
    assert (external.parent / "out.onnx.data").read_bytes() == first
    assert (external.parent / "out.onnx.data.1").exists()
    onnx.load(out)


def test_external_data_can_be_taken_in_or_put_out(external, samples):
    out = external.with_name("in.onnx")
    fold(external, out, FoldOptions(verify=None, external="never"))
    assert not load(out).proto.graph.initializer[0].external_data
    out = external.with_name("put.onnx")
    fold(samples / "digits.onnx", out, FoldOptions(verify=None, external="always"))
    assert (external.parent / "put.onnx.data").exists()
    model = onnx.load(out)
    feeds = feeds_for(model)
    assert_same(run(onnx.load(samples / "digits.onnx"), feeds), run(model, feeds))


def test_an_unfolded_copy_elsewhere_takes_its_data_along(external, tmp_path):
    model = onnx.load(external, load_external_data=False)
    del model.graph.node[1]
    model.graph.node[0].output[0] = "y"
    external.write_bytes(model.SerializeToString())
    there = tmp_path / "there"
    there.mkdir()
    fold(external, there / "copy.onnx", PLAIN)
    assert (there / "copy.onnx").read_bytes() == external.read_bytes()
    assert (there / "external_data.data").read_bytes() == external.with_suffix(".data").read_bytes()
    with pytest.raises(OutputError, match="would replace"):
        fold(external, there / "copy.onnx", PLAIN, force=True)


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("/etc/passwd", {}, "outside"),
        ("../external_data.data", {}, "outside"),
        ("a/../../x", {}, "outside"),
        ("", {}, "outside"),
        ("missing.data", {}, "missing"),
        ("folder", {}, "regular"),
        ("fifo", {}, "regular"),
        ("link", {}, "is a link"),
        ("inner", {}, "is a link"),
        ("turn/inside.data", {}, "behind the link 'turn'"),
        ("hard.data", {}, "2 names"),
        ("folder/", {}, "regular"),
        (".", {}, "regular"),
        ("external_data.data", {"offset": "999999"}, "needs"),
        ("external_data.data", {"offset": "-1"}, "needs"),
        ("external_data.data", {"offset": "x"}, "numbers"),
        ("external_data.data", {"length": "1"}, "needs"),
    ],
)
def test_unsafe_external_data_is_refused(external, tmp_path, location, entries, message):
    (external.parent / "folder").mkdir()
    os.mkfifo(external.parent / "fifo")
    (external.parent / "link").symlink_to("/etc/hostname")
    (external.parent / "inner").symlink_to("external_data.data")
    (external.parent / "folder" / "inside.data").write_bytes(bytes(4096))
    (external.parent / "turn").symlink_to("folder")
    os.link(external.parent / "folder" / "inside.data", external.parent / "hard.data")
    with_location(external, location, **entries)
    with pytest.raises(InputError, match=message):
        load(external)


def test_a_model_behind_a_link_finds_its_data(external, tmp_path):
    """As onnx's own loader has it: only what lies below the model's folder may be no link."""
    (tmp_path / "elsewhere").symlink_to(external.parent)
    found = load(tmp_path / "elsewhere" / external.name)
    assert [found.external.span(tensor).path for tensor in external_tensors(found.proto)]


def test_a_data_file_of_another_kind_is_not_read(external, monkeypatch):
    """What is judged is what was opened, whatever has the name by then."""
    data = external.parent / "external_data.data"
    opened = os.open

    def late(path, *arguments, **keywords):
        if path == data.name:
            data.unlink()
            data.symlink_to("/dev/zero")
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", late)
    monkeypatch.setattr(os, "supports_dir_fd", {late})
    with pytest.raises(InputError, match="is a link"):
        load(external)


def zipped(*names):
    """A zip archive of empty files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x80\x02}q", "pickle"),
        (b"{}", "text"),
        (b"\x89HDF\r\n", "Keras"),
        (zipped("model.weights.h5", "config.json"), "Keras"),
        (zipped("notes.txt"), "holds no model"),
        (b"\x02" + bytes(7) + b"{}" + bytes(8), "safetensors"),
        (b"<?xml version='1.0'?><net name='m'>", "OpenVINO"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"\x08\x08", "no graph"),
        (bytes(range(256)) * 4, "not an ONNX model"),
    ],
)
def test_other_files_are_refused_by_content(tmp_path, content, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(path)


def test_every_truncation_is_refused_or_a_model(tmp_path, samples):
    data = (samples / "conv.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            fold(path, tmp_path / "out.onnx", PLAIN, force=True)
        except InputError as error:
            assert str(path) in str(error)


def test_tensors_that_lie_about_their_size_are_refused(tmp_path):
    path = write("conv", tmp_path)
    for dims in ([2**60], [-4, 3, 3, 3], [2**40, 2**40], [4, 3, 3, 2]):
        model = onnx.load(path)
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(model.SerializeToString())
        with pytest.raises(InputError):
            fold(bad, tmp_path / "out.onnx", PLAIN, force=True)


def test_an_unknown_element_type_is_refused(tmp_path, samples):
    model = onnx.load(samples / "conv.onnx")
    model.graph.input[0].type.tensor_type.elem_type = 99
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match="unknown type 99"):
        fold(tmp_path / "odd.onnx")


def test_graphs_that_are_none_are_refused(tmp_path):
    def broken(change):
        model = onnx.load(write("conv", tmp_path))
        change(model.graph)
        path = tmp_path / "broken.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(InputError):
            fold(path, tmp_path / "out.onnx", PLAIN, force=True)

    def cycle(graph):
        graph.node[0].input[0] = "b"

    def twice(graph):
        graph.node[2].output[0] = "b"

    def from_nowhere(graph):
        graph.node[0].input[0] = "nowhere"

    def no_operator(graph):
        graph.node[0].op_type = ""

    for change in (cycle, twice, from_nowhere, no_operator):
        broken(change)


def test_nodes_out_of_order_are_sorted(tmp_path):
    model = onnx.load(write("conv", tmp_path))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    path = tmp_path / "shuffled.onnx"
    path.write_bytes(model.SerializeToString())
    assert fold(path, tmp_path / "out.onnx", PLAIN).inspection.foldable == 1


def test_outputs_are_whole_or_absent(tmp_path, samples, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    monkeypatch.setattr(save_module.os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        fold(samples / "conv.onnx", out, PLAIN, force=True)
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_existing_files_and_folders_are_safe(tmp_path, samples):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists"):
        fold(samples / "conv.onnx", out, PLAIN)
    with pytest.raises(UsageError, match="folder"):
        fold(samples / "conv.onnx", tmp_path, PLAIN)
    with pytest.raises(OutputError):
        fold(samples / "conv.onnx", tmp_path / "no" / "out.onnx", PLAIN)
    out.chmod(0o640)
    fold(samples / "conv.onnx", out, PLAIN, force=True)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_folding_is_reproducible_and_says_where_it_came_from(tmp_path, samples):
    first, second = tmp_path / "1.onnx", tmp_path / "2.onnx"
    fold(samples / "digits.onnx", first, PLAIN)
    fold(samples / "digits.onnx", second, PLAIN)
    assert first.read_bytes() == second.read_bytes()
    entries = {entry.key: entry.value for entry in load(first).proto.metadata_props}
    assert entries["bnfold.source"] == "digits.onnx"
    assert entries["bnfold.source_sha256"] == load(samples / "digits.onnx").sha256


def test_unknown_fields_survive(tmp_path):
    path = write("conv", tmp_path)
    unknown = b"\xfa\x3e\x03abc"
    model = onnx.load(path)
    model.graph.MergeFromString(unknown)
    path.write_bytes(model.SerializeToString() + unknown)
    out = tmp_path / "out.onnx"
    fold(path, out, PLAIN)
    assert out.read_bytes().count(unknown) == 2


def test_pieces_are_what_protobuf_writes(samples):
    for path in samples.glob("*.onnx"):
        model = load(path)
        assert b"".join(map(bytes, chunks(parts_of(model.proto, model.external), model.external))) == path.read_bytes()


def test_what_is_not_folded_keeps_its_bytes(tmp_path, samples):
    out = tmp_path / "out.onnx"
    fold(samples / "digits.onnx", out, PLAIN)
    before, after = load(samples / "digits.onnx").proto.graph, load(out).proto.graph
    kept = {
        tensor.name: tensor.SerializeToString() for tensor in after.initializer if not tensor.name.endswith("_bnfold")
    }
    old = {tensor.name: tensor.SerializeToString() for tensor in before.initializer}
    assert kept
    assert all(old[name] == data for name, data in kept.items())
    assert [n.SerializeToString() for n in after.node if n.op_type == "Relu"] != []
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)


def test_a_file_that_changes_while_it_is_copied_is_noticed(tmp_path, samples):
    path = tmp_path / "model.onnx"
    shutil.copy(samples / "training_mode.onnx", path)
    model = load(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed"), staged(model, tmp_path / "out.onnx", changed=False):
        pass
    assert not (tmp_path / "out.onnx").exists()


def test_a_large_model_needs_little_memory_for_what_it_does_not_touch(tmp_path):
    path = write("external_data", tmp_path)
    model = onnx.load(path, load_external_data=False)
    data = tmp_path / "external_data.data"
    offset = data.stat().st_size
    with open(data, "ab") as file:
        file.truncate(offset + 2**26)
    extra = model.graph.initializer.add(name="unused", data_type=onnx.TensorProto.FLOAT, dims=[2**24])
    extra.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", str(offset)), ("length", str(2**26))):
        extra.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    import tracemalloc

    tracemalloc.start()
    fold(path, tmp_path / "out.onnx", PLAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25
    assert (tmp_path / "out.onnx.data").stat().st_size > 2**26
    assert np.isfinite(onnx.numpy_helper.to_array(onnx.load(tmp_path / "out.onnx").graph.initializer[-1])).all()
