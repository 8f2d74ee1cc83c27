"""The scan of the wire format: what it separates comes back byte by byte, and what it can't read it leaves alone."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold
from bnfold.errors import BnfoldError
from bnfold.files import wire
from bnfold.files.load import load, load_bytes
from bnfold.files.serialize import chunks, in_memory, pieces
from bnfold.files.wire import separate, varint


def reader(data):
    return lambda offset, length: data[offset : offset + length]


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def written(model):
    return b"".join(map(bytes, chunks(pieces(model.proto, model.external), model.external)))


def big(name="w", elements=40_000, dtype="f4"):
    return numpy_helper.from_array(np.arange(elements).astype(dtype), name)


def model(initializers=(), nodes=(), functions=()):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "g", [source], [output], initializers)
    return helper.make_model(graph, functions=functions, opset_imports=[helper.make_opsetid("", 17)])


def nested(levels):
    """A model with a large tensor at that depth of nested graphs."""
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", 1, None)], [big()])
    for level in range(levels):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=body)
        body = helper.make_graph([node], f"b{level}", [], [helper.make_tensor_value_info(f"o{level}", 1, None)])
    node = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
    return model([numpy_helper.from_array(np.array(True), "c")], [node])


def constants():
    node = helper.make_node("Constant", [], ["k"], value=big("k"))
    several = helper.make_node("Custom", [], ["l"], domain="own")
    several.attribute.append(AttributeProto(name="many", type=AttributeProto.TENSORS, tensors=[big("a"), big("b")]))
    inner = helper.make_node("Constant", [], ["o"], value=big("f"))
    function = helper.make_function("own", "F", [], ["o"], [inner], [helper.make_opsetid("", 17)])
    return model(nodes=[node, several], functions=[function])


MODELS = {
    "initializers": (lambda: model([big(), big("v", 70_000), big("small", 10)]), 2),
    "half": (lambda: model([big(dtype="f2"), big("i", dtype="i8")]), 2),
    "constants": (constants, 4),
    "nested": (lambda: nested(2), 8),
    "deep": (lambda: nested(5), 64),
    "nothing": (lambda: model([big("small", 10)]), 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_separated_is_small_and_comes_back(name):
    build, count = MODELS[name]
    data = build().SerializeToString()
    skeleton, cuts = separate(reader(data), len(data))
    assert len(cuts) == count
    assert len(skeleton) < 4000 + 400 * count
    loaded = load_bytes(data)
    assert written(loaded) == data
    assert in_memory(loaded.proto, loaded.external).SerializeToString() == data


def test_a_tensor_of_an_unusual_order_keeps_its_bytes():
    raw = np.arange(40_000, dtype="f4").tobytes()
    odd = field(9, raw) + field(8, b"w") + field(77, b"unknown") + b"\x10\x01" + varint(1 << 3) + varint(40_000)
    base = model().SerializeToString()
    data = base + field(7, field(5, odd))  # protobuf merges the two graphs
    loaded = load_bytes(data)
    assert odd in written(loaded)
    np.testing.assert_array_equal(
        loaded.external.read(loaded.proto.graph.initializer[0]), np.arange(40_000, dtype="f4")
    )


@pytest.mark.parametrize(
    "tensor",
    [
        lambda: TensorProto(name="w", data_type=1, dims=[20_000], float_data=[1.0] * 20_000),
        lambda: TensorProto(name="w", data_type=8, dims=[20_000], string_data=[b"text"] * 20_000),
        lambda: TensorProto(name="w", data_type=1, dims=[20_000], raw_data=bytes(80_000), data_location=0),
    ],
    ids=["floats", "strings", "location"],
)
def test_tensors_that_hold_their_data_otherwise_stay(tensor):
    data = model([tensor()]).SerializeToString()
    assert separate(reader(data), len(data)) == (data, {})


def test_data_that_comes_twice_stays():
    tensor = field(8, b"w") + field(9, bytes(80_000)) + field(9, bytes(80_000))
    data = field(7, field(5, tensor))
    assert separate(reader(data), len(data)) == (data, {})


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        field(7, field(5, b"")) + b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3b" + bytes(100),
        varint(7 << 3 | 2) + varint(2**63) + bytes(100_000),
        varint(7 << 3 | 2) + b"\x80" * 200,
    ],
    ids=["tags", "short", "group", "huge", "varint"],
)
def test_what_is_no_protobuf_is_left_to_protobuf(data):
    assert separate(reader(data), len(data)) == (data, {})
    with pytest.raises(BnfoldError):
        load_bytes(data)


def test_a_mark_in_a_file_is_no_mark():
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="\0" + "0" * 48)
    with pytest.raises(BnfoldError, match=r"lies in another file"):
        load_bytes(model([tensor]).SerializeToString())


SEED = model([big(), big("v", 17_000)], [helper.make_node("Constant", [], ["k"], value=big("k", 17_000))])
SEED_BYTES = SEED.SerializeToString()
HEADS = [at for at in range(len(SEED_BYTES)) if at < 300 or SEED_BYTES[at : at + 1] == b"\x4a"][:2000]


@given(st.lists(st.tuples(st.sampled_from(HEADS), st.integers(0, 255)), max_size=4), st.integers(0, len(SEED_BYTES)))
def test_damaged_models_are_read_as_protobuf_reads_them(flips, cut):
    data = bytearray(SEED_BYTES[: cut or None])
    for at, byte in flips:
        if at < len(data):
            data[at] = byte
    data = bytes(data)
    skeleton, cuts = separate(reader(data), len(data))
    whole, parted = ModelProto(), ModelProto()
    try:
        whole.ParseFromString(data)
    except Exception:  # protobuf refuses the whole: the skeleton is what bnfold refuses it by
        with pytest.raises(BnfoldError):
            load_bytes(data)
        return
    parted.ParseFromString(skeleton)
    assert len(parted.graph.node) == len(whole.graph.node)
    try:
        loaded = load_bytes(data)
    except BnfoldError:
        return
    assert in_memory(loaded.proto, loaded.external) == whole
    assert len(cuts) == len(loaded.external.marked)


def test_folding_with_large_and_with_small_weights_is_the_same(tmp_path, monkeypatch, samples):
    for path in sorted(samples.glob("*.onnx")):
        fold(path, tmp_path / "a.onnx", FoldOptions(verify=None), force=True)
        with monkeypatch.context() as patch:
            patch.setattr(wire, "LARGE", 1)
            patch.setattr("bnfold.graph.onnx_edit.DEFERRED", 1)
            patch.setattr("bnfold.weights.BLOCK", 7)
            fold(path, tmp_path / "b.onnx", FoldOptions(verify=None), force=True)
        assert onnx.load(tmp_path / "a.onnx") == onnx.load(tmp_path / "b.onnx"), path


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(SEED_BYTES)
    loaded = load(path)
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(BnfoldError, match="shorter while it was read"):
        loaded.external.read(loaded.proto.graph.initializer[0])
