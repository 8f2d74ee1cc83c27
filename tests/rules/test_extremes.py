"""Max and Min."""

import onnx
import pytest
from onnx import numpy_helper

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import align
from tests.builders import parse, positive, weights
from tests.folding import fold_proto
from tests.rules.cases.extremes import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestExtremes(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_the_proof_tells_folds_of_several_values_from_wrong_ones(op):
    """A bound, or one of the values, that is 1% off per channel is found: factor and offset are those of all."""
    original = _model(op)
    folded, (plan,) = fold_proto(original)
    assert len(plan.folds) == 1
    assert _wrong(original, folded) == 0
    changed = [held.name for held in folded.graph.initializer if held.name.endswith("_bnfold")]
    assert len(changed) == 4
    for name in changed:
        other = onnx.ModelProto.FromString(folded.SerializeToString())
        (held,) = (held for held in other.graph.initializer if held.name == name)
        array = numpy_helper.to_array(held).copy()
        array.flat[1] *= 1.01
        held.CopyFrom(numpy_helper.from_array(array, name))
        assert _wrong(original, other)


def _model(op: str) -> onnx.ModelProto:
    graph = f"""(float[N, 3, 8, 8] x) => (float[] y) {{
        t = Conv (x, w, c)
        u = Conv (x, w2, c)
        a = {op} (t, u, k)
        b = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        y = Elu (b)
    }}"""
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), "c": weights(4, 4), "k": weights(3, 4, 1, 1)}
    return parse(graph, {**held, **positive("bn", 4)})


def _wrong(original: onnx.ModelProto, folded: onnx.ModelProto) -> int:
    found = align(OnnxGraphs(original), OnnxGraphs(folded))
    return len(found.mismatches) + len(found.wrong_outputs)
