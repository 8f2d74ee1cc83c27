"""The scan of the wire format: what it separates comes back byte by byte, and what it can't read it leaves alone."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from bnfold.api import FoldOptions, fold
from bnfold.errors import BnfoldError
from bnfold.io import wire
from bnfold.io.load import load, load_bytes
from bnfold.io.serialize import chunks, in_memory, parts_of
from bnfold.io.wire import separate, varint


def read_from(data):
    return lambda offset, length: data[offset : offset + length]


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def written(model):
    return b"".join(map(bytes, chunks(parts_of(model.proto, model.external), model.external)))


def big(name="w", elements=40_000, dtype="f4"):
    return numpy_helper.from_array(np.arange(elements).astype(dtype), name)


def model(initializers=(), nodes=(), functions=()):
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "g", [source], [output], initializers)
    return helper.make_model(graph, functions=functions, opset_imports=[helper.make_opsetid("", 17)])


def nested(levels):
    """A model with a large tensor at that depth of subgraphs."""
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
    "constants": (constants, 0),
    "nested": (lambda: nested(2), 8),
    "deep": (lambda: nested(5), 64),
    "nothing": (lambda: model([big("small", 10)]), 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_separated_is_small_and_comes_back(name):
    build, count = MODELS[name]
    data = build().SerializeToString()
    skeleton, cuts = separate(read_from(data), len(data))
    assert len(cuts) == count
    assert count == 0 or len(skeleton) < 4000 + 400 * count
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
    assert separate(read_from(data), len(data)) == (data, {})


def test_data_that_comes_twice_stays():
    tensor = field(8, b"w") + field(9, bytes(80_000)) + field(9, bytes(80_000))
    data = field(7, field(5, tensor))
    assert separate(read_from(data), len(data)) == (data, {})


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
    assert separate(read_from(data), len(data)) == (data, {})
    with pytest.raises(BnfoldError):
        load_bytes(data)


def test_a_mark_in_a_file_is_no_mark():
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="\0" + "0" * 48)
    with pytest.raises(BnfoldError, match=r"lies in another file"):
        load_bytes(model([tensor]).SerializeToString())


SEED = model([big(), big("v", 17_000), big("u", 17_000)])
SEED_BYTES = SEED.SerializeToString()
HEADS = [at for at in range(len(SEED_BYTES)) if at < 300 or SEED_BYTES[at : at + 1] == b"\x4a"][:2000]


@given(st.lists(st.tuples(st.sampled_from(HEADS), st.integers(0, 255)), max_size=4), st.integers(0, len(SEED_BYTES)))
def test_damaged_models_are_read_as_protobuf_reads_them(flips, cut):
    data = bytearray(SEED_BYTES[: cut or None])
    for at, byte in flips:
        if at < len(data):
            data[at] = byte
    data = bytes(data)
    skeleton, cuts = separate(read_from(data), len(data))
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
            patch.setattr("bnfold.frontends.onnx.editor.DEFERRED", 1)
            patch.setattr("bnfold.numerics.linear.BLOCK", 7)
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


def test_what_comes_twice_is_read_as_protobuf_reads_it(tmp_path):
    """An embedded message that comes twice is merged: the last data counts, for onnxruntime and for bnfold."""
    first = numpy_helper.from_array(np.full((4, 3, 64, 64), 1.0, "f4"))
    last = TensorProto(raw_data=np.full((4, 3, 64, 64), 2.0, "f4").tobytes())
    attribute = (
        field(1, b"value") + field(5, first.SerializeToString()) + field(5, last.SerializeToString()) + b"\xa0\x01\x04"
    )
    node = field(2, b"w") + field(4, b"Constant") + field(5, attribute)
    conv = helper.make_node("Conv", ["x", "w"], ["y"]).SerializeToString()
    graph = field(1, node) + field(1, conv) + field(2, b"g") + field(12, b"")
    data = b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")
    whole = ModelProto()
    whole.ParseFromString(data)
    loaded = load_bytes(data)
    assert loaded.proto == whole
    assert set(numpy_helper.to_array(loaded.proto.graph.node[0].attribute[0].t).flat) == {2.0}


def test_large_attributes_are_what_they_are_in_verification(tmp_path):
    """Two copies of a model with a large Constant are the same model, and a bit in it tells them apart."""
    from bnfold.api import verify
    from bnfold.options import VerifyOptions

    options = VerifyOptions(checks=("structure", "weights"))
    batch_norm = [numpy_helper.from_array(np.full(1, 2.0, "f4"), name) for name in "sbmv"]
    nodes = [
        helper.make_node("Constant", [], ["k"], value=big("k")),
        helper.make_node("Custom", ["k"], ["l"], domain="own", held=big("h")),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *"sbmv"], ["n"]),
    ]
    made = model([numpy_helper.from_array(np.ones((1, 1, 1), "f4"), "w"), *batch_norm], nodes)
    made.graph.output.append(helper.make_tensor_value_info("l", 1, None))
    made.graph.output.append(helper.make_tensor_value_info("n", 1, None))
    made.opset_import.append(helper.make_opsetid("own", 1))
    (tmp_path / "a.onnx").write_bytes(made.SerializeToString())
    (tmp_path / "b.onnx").write_bytes(made.SerializeToString())
    assert verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options).verdict == "equivalent"
    fold(tmp_path / "a.onnx", tmp_path / "f.onnx", FoldOptions(verify=options))
    assert verify(tmp_path / "a.onnx", tmp_path / "f.onnx", options).verdict == "equivalent"
    for index in (0, 1):
        other = ModelProto()
        other.CopyFrom(made)
        tensor = other.graph.node[index].attribute[0].t
        tensor.raw_data = tensor.raw_data[:-1] + b"\x01"
        (tmp_path / "b.onnx").write_bytes(other.SerializeToString())
        assert verify(tmp_path / "a.onnx", tmp_path / "b.onnx", options).verdict != "equivalent"


def test_a_large_weight_in_a_function_s_branch_is_renamed_with_its_reader(tmp_path):
    """Inlining gives it a name of its own for each call; what is written must agree."""
    held = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("f4") / 64, "bigw")
    info = [helper.make_empty_tensor_value_info(name) for name in ("t", "e")]
    branch = helper.make_graph([helper.make_node("Conv", ["a", "bigw"], ["t"])], "then", [], info[:1], [held])
    other = helper.make_graph([helper.make_node("Conv", ["a", "bigw"], ["e"])], "else", [], info[1:], [held])
    body = [
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=other),
        helper.make_node("BatchNormalization", ["i", *"sbmv"], ["o"]),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "F", ["a", "c", *"sbmv"], ["o"], body, opsets)
    nodes = [helper.make_node("F", [x, "c", *"sbmv"], [y], domain="own") for x, y in (("x", "y"), ("z", "u"))]
    statistics = [numpy_helper.from_array(np.full(4, 2.0, "f4"), name) for name in "sbmv"]
    condition = numpy_helper.from_array(np.array(True), "c")
    inputs = [helper.make_tensor_value_info(name, 1, [1, 3, 64, 64]) for name in ("x", "z")]
    outputs = [helper.make_tensor_value_info(name, 1, [1, 4, 1, 1]) for name in ("y", "u")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [condition, *statistics])
    made = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    fold(path, tmp_path / "f.onnx", FoldOptions(verify=None))
    onnx.checker.check_model(onnx.load(tmp_path / "f.onnx"), full_check=True)
    ort = pytest.importorskip("onnxruntime")
    feeds = {name: np.random.default_rng(1).standard_normal((1, 3, 64, 64)).astype("f4") for name in ("x", "z")}
    runs = [
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, feeds)
        for p in (path, tmp_path / "f.onnx")
    ]
    for expected, actual in zip(*runs, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
