"""Parts of a model, cut out: what they need of the rest."""

import numpy as np
import onnx
import onnxruntime as ort

from bnfold.api import fold, verify
from bnfold.frontends.onnx.extract import extract
from bnfold.io.load import load_bytes
from bnfold.options import VerifyOptions
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights

FLOAT = onnx.TensorProto.FLOAT


def network():
    """A layer whose Reshape takes its batch from the input of the network, as exported attention does."""
    nodes = [
        node("Relu", ["x"], ["first"]),
        node("MatMul", ["first", "w"], ["m"], name="dense"),
        bn_node("m", "b", "bn"),
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Concat", ["batch", "rest"], ["target"], axis=0),
        node("Reshape", ["b", "target"], ["r"]),
        node("Transpose", ["r"], ["y"], perm=[0, 2, 1]),
    ]
    held = {"w": weights(1, 4, 6), "zero": np.array([0]), "rest": np.array([2, 3]), **batch_norm("bn", 6)}
    return make(nodes, [tensor("x", ["N", 4])], [ANY], held, opset=17)


def test_the_shape_of_what_lies_before_a_part_is_a_constant_in_it():
    model = load_bytes(network().SerializeToString())
    assert extract(model, {"first": FLOAT}, ["y"]) is None
    part = extract(model, {"first": FLOAT}, ["y"], {"shape": np.array([5, 4])})
    assert part is not None
    assert [entry.op_type for entry in part.graph.node].count("Shape") == 0
    feed = {"x": weights(3, 5, 4)}
    whole = ort.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
    cut = ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(cut.run(None, {"first": np.maximum(feed["x"], 0)})[0], whole, rtol=1e-5, atol=1e-6)


def test_other_values_from_before_a_part_are_no_constants():
    """Only shapes are the same whatever the numbers are."""
    nodes = [node("Relu", ["x"], ["first"]), node("Abs", ["x"], ["other"]), node("Add", ["first", "other"], ["y"])]
    model = load_bytes(make(nodes, [tensor("x", [2])], [ANY], {}).SerializeToString())
    assert extract(model, {"first": FLOAT}, ["y"], {"other": np.zeros(2, np.float32)}) is None


def test_a_layer_that_reads_the_shape_of_the_input_is_run(tmp_path):
    path, folded = tmp_path / "m.onnx", tmp_path / "folded.onnx"
    path.write_bytes(network().SerializeToString())
    assert fold(path, folded).verification.verdict == "equivalent"
    check = verify(path, folded, VerifyOptions(["layers"])).verification.checks[0]
    assert (check.verdict, check.figures["skipped"]) == ("pass", 0)
