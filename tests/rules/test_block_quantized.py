"""Onnxruntime's MatMulNBits."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import align
from tests.folding import fold_proto
from tests.rules.cases.block_quantized import CASES
from tests.rules.operator_tests import CaseTests


class TestMatMulNBits(CaseTests):
    cases = CASES


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_the_proof_tells_the_scales_from_wrong_ones(case):
    original = case.build()
    folded, _ = fold_proto(original)
    found = align(OnnxGraphs(original), OnnxGraphs(folded))
    assert not found.mismatches and not found.wrong_outputs
    for held in folded.graph.initializer:
        if held.name.endswith("_bnfold"):
            array = numpy_helper.to_array(held).copy()
            array.flat[3] = array.flat[3] * 1.01 + np.float32(1e-3)
            wrong = onnx.ModelProto.FromString(folded.SerializeToString())
            next(other for other in wrong.graph.initializer if other.name == held.name).CopyFrom(
                numpy_helper.from_array(array, held.name)
            )
            found = align(OnnxGraphs(original), OnnxGraphs(wrong))
            assert found.mismatches or found.wrong_outputs
