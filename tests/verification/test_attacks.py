"""Pairs that were once judged wrong: different models called equivalent, right folds called different."""

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from onnx import helper

from bnfold.api import FoldOptions, fold
from bnfold.verification.judge import VerifyOptions, verify_files

PROOFS = ("structure", "weights")


def verdict(tmp_path, before, after, gates=PROOFS):
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path, model in zip(paths, (before, after), strict=True):
        path.write_bytes(model.SerializeToString())
    return verify_files(*paths, VerifyOptions(gates))[0].verdict


def random(op, second, inputs):
    """The difference of two random values, or of one and itself."""
    attributes = {"shape": [3]} if op == "RandomNormal" else {}
    read = [] if op == "RandomNormal" else inputs
    nodes = [node(op, read, [name], name=name, **attributes) for name in ("r1", "r2")]
    held = {"ratio": np.array(0.5, "f4"), "yes": np.array(True)}
    held = held if op == "Dropout" else {}
    nodes.append(node("Sub", ["r1", second], ["d"]))
    nodes.append(node("Add", ["d", "x"], ["y"]))
    return make(nodes, [tensor("x", [3])], [tensor("y", [3])], held)


@pytest.mark.parametrize("op", ["RandomNormal", "RandomUniformLike", "Bernoulli", "Dropout"])
def test_two_random_values_are_not_one(op, tmp_path):
    inputs = ["x", "ratio", "yes"] if op == "Dropout" else ["x"]
    assert verdict(tmp_path, random(op, "r2", inputs), random(op, "r1", inputs)) != "equivalent"


def nested(op, opset, **attributes):
    """An operator inside an If."""
    body = helper.make_graph([node(op, ["x"], ["t"], **attributes)], "then", [], [tensor("t", None)])
    other = helper.make_graph([node("Identity", ["x"], ["e"])], "else", [], [tensor("e", None)])
    nodes = [node("If", ["c"], ["y"], then_branch=body, else_branch=other)]
    inputs = [tensor("x", [1, 4, 4, 1]), tensor("c", [], 9)]
    return make(nodes, inputs, [tensor("y", None)], {}, opset=opset, ir_version=9)


def test_an_operator_of_a_nested_graph_may_have_changed_with_its_opset(tmp_path):
    """DFT took another axis by default before opset 20."""
    assert verdict(tmp_path, nested("DFT", 19), nested("DFT", 20)) == "undecided"
    assert verdict(tmp_path, nested("Relu", 19), nested("Relu", 20)) == "equivalent"


def test_the_operators_of_another_domain_may_have_changed_with_its_version(tmp_path):
    def custom(version):
        nodes = [node("Foo", ["x"], ["y"], domain="zz")]
        graph = helper.make_graph(nodes, "g", [tensor("x", [3])], [tensor("y", [3])])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("zz", version)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    assert verdict(tmp_path, custom(1), custom(2)) == "undecided"
    assert verdict(tmp_path, custom(2), custom(2)) == "equivalent"


def test_texts_are_told_apart_byte_by_byte(tmp_path):
    def split(delimiter):
        nodes = [node("StringSplit", ["x"], ["y", "n"], delimiter=delimiter)]
        return make(nodes, [tensor("x", [3], 8)], [tensor("y", None, 8)], {}, opset=20, ir_version=9)

    assert verdict(tmp_path, split(b"\xff"), split(b"\xfe")) == "different"


@pytest.mark.parametrize("picked", [[0, 3], [1], [0, 1, 2, 3, 4]])
def test_a_fold_of_a_few_channels_is_right(picked, tmp_path):
    """What nobody reads keeps its weights: most of the layer is then as it was, and some of it is not."""
    held = {**batch_norm("bn", len(picked), 1), "w": weights(1, 5, 4, 1, 1), "i": np.array(picked)}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Gather", ["c", "i"], ["p"], axis=1), bn_node("p", "y", "bn")]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor("y", None)], held)
    path, out = tmp_path / "m.onnx", tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions())
    assert (result.inspection.kept, result.verification.verdict) == (0, "equivalent")


@pytest.mark.parametrize("branch", ["then", "else"])
def test_branches_may_each_have_a_weight_of_one_name(branch, tmp_path):
    def body(name, with_bn):
        nodes = [node("Conv", ["x", "w"], [f"{name}_c"])]
        nodes.append(bn_node(f"{name}_c", f"{name}_y", "bn") if with_bn else node("Relu", [f"{name}_c"], [f"{name}_y"]))
        held = [onnx.numpy_helper.from_array(weights(len(name) + with_bn, 3, 3, 1, 1), "w")]
        return helper.make_graph(nodes, name, [], [tensor(f"{name}_y", [1, 3, 4, 4])], held)

    bodies = {f"{name}_branch": body(name, name == branch) for name in ("then", "else")}
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("c", [], 9)]
    nodes = [node("If", ["c"], ["y"], **bodies)]
    model = make(nodes, inputs, [tensor("y", None)], batch_norm("bn", 3, 1))
    path, out = tmp_path / "m.onnx", tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, out, FoldOptions(verify=VerifyOptions(PROOFS)))
    assert (result.inspection.kept, result.verification.verdict) == (0, "equivalent")
