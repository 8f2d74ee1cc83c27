"""Candidates inside If, Loop and model-local functions."""

import onnx
from onnx import TensorProto, helper

from bnfold.api import fold
from tests.builders import ANY, STATISTICS, X, bn, make, node, normal, subgraph, tensor
from tests.folding import fold_and_compare, fold_proto
from tests.planner.cases.subgraphs import CASES
from tests.rules.operator_tests import CaseTests


class TestSubgraphs(CaseTests):
    cases = CASES


def test_a_renamed_tensor_does_not_capture_names_of_subgraphs():
    def branch(name, inner, out):
        return subgraph([node("Abs", ["x"], [inner]), node("Neg", [inner], [out])], name, [out])

    choice = node("If", ["f"], ["o"], then_branch=branch("then", "b2", "o1"), else_branch=branch("else", "q", "o2"))
    nodes = [node("Conv", ["x", "w"], ["t"]), choice, bn("t", "b2"), node("Relu", ["b2"], ["y"])]
    inputs = [X, tensor("f", [], TensorProto.BOOL)]
    model = make(nodes, inputs, [ANY, tensor("o", None)], {"w": normal(4, 4, 1, 1), **STATISTICS})
    assert fold_and_compare(model) == 1
    onnx.checker.check_model(fold_proto(model)[0], full_check=True)


def test_a_function_that_is_kept_leaves_the_rest_foldable(tmp_path):
    inside = [node("Relu", ["x"], ["r"]), node("BatchNormalization", ["r", "s", "b", "m", "v"], ["y"])]
    function = helper.make_function(
        "local", "F", ["x", "s", "b", "m", "v"], ["y"], inside, [helper.make_opsetid("", 17)]
    )
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn("t", "u"),
        node("F", ["u", "s", "b", "m", "v"], ["y"], domain="local"),
    ]
    model = make(nodes, [X], [tensor("y", [2, 4, 6, 6])], {"w": normal(4, 4, 1, 1), **STATISTICS}, functions=[function])
    path = tmp_path / "f.onnx"
    path.write_bytes(model.SerializeToString())
    result = fold(path, tmp_path / "out.onnx")
    assert (result.inspection.foldable, result.inspection.kept) == (1, 1)
    assert result.verification.verdict == "equivalent"
    assert len(onnx.load(tmp_path / "out.onnx").functions) == 1
