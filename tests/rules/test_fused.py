"""Operators that onnxruntime's optimizer makes of several."""

import onnx
import onnxruntime
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import align
from tests.builders import node
from tests.folding import assert_equivalent, fold_proto
from tests.rules.cases.fused import CASES, optimized
from tests.rules.operator_tests import CaseTests


class TestFused(CaseTests):
    cases = CASES


@pytest.mark.parametrize("op", ["FusedConv", "FusedGemm", "FusedMatMul", "SkipLayerNormalization"])
def test_what_the_optimizer_writes_folds(op, tmp_path):
    """The file of an extended optimization: shapes are known behind its operators, and the proof follows them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(optimized()[op].SerializeToString(), options)
    model = onnx.load(tmp_path / "optimized.onnx")
    assert op in {each.op_type for each in model.graph.node}
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded)
    found = align(OnnxGraphs(model), OnnxGraphs(folded))
    assert not found.mismatches and not found.wrong_outputs


def test_a_function_of_the_same_name_is_no_operator_of_onnxruntime():
    """The model's own definition counts: here the sigmoid of a Conv."""
    model = CASES[0].build()
    body = [node("Conv", ["x", "w", "c"], ["t"]), node("Sigmoid", ["t"], ["y"])]
    opset = onnx.helper.make_opsetid("", 17)
    model.functions.append(
        onnx.helper.make_function("com.microsoft", "FusedConv", ["x", "w", "c"], ["y"], body, [opset], ["activation"])
    )
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    assert folded == model
