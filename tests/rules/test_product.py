"""Products of two computed values, and constant matrices along another axis than that of the channels."""

import numpy as np
import pytest

from tests.builders import batch_norm, of_opset, parse, weights
from tests.folding import assert_same, fold_proto, run
from tests.rules.cases.product import CASES
from tests.rules.operator_tests import CaseTests
from tests.verification.aligned import assert_aligned


class TestProduct(CaseTests):
    cases = CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_proof_follows(case):
    model = case.build()
    assert_aligned(model, fold_proto(model, **case.options)[0])


GRAPH = """(float[2, 3, K] x, float[2, Q, K] z) => (float[] y) {
    c = Conv (x, w)
    v = Transpose <perm = [0, 2, 1]> (c)
    WEIGHTS
    o = MatMul (a, v)
    t = Transpose <perm = [0, 2, 1]> (o)
    y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
}"""


def attention(to_weights, keys="5", queries="5", opset=17):
    graph = GRAPH.replace("WEIGHTS", to_weights).replace("K]", f"{keys}]").replace("Q,", f"{queries},")
    return of_opset(parse(graph, {"w": weights(1, 4, 3, 1), **batch_norm("bn", 4)}), opset)


@pytest.mark.parametrize(
    ("to_weights", "sizes", "opset", "whole"),
    [
        ("a = Softmax (z)", ("5", "4"), 17, True),
        ("a = Softmax <axis = 2> (z)", ("5", "4"), 11, True),
        ("a = Softmax <axis = -1> (z)", ("5", "4"), 11, True),
        ("a = Softmax (z)", ("5", "4"), 11, False),  # over the last two axes together
        ("a = Softmax (z)", ("L", "L"), 17, True),
        ("a = Softmax (z)", ("L", "4"), 17, False),  # of no keys the product is 0
        ("s = Softmax (z) f = Cast <to = 11> (s) a = Cast <to = 1> (f)", ("5", "4"), 17, True),
        ("h = Cast <to = 10> (z) s = Softmax (h) a = Cast <to = 1> (s)", ("5", "4"), 17, False),
        ("s = Softmax (z) h = Cast <to = 10> (s) a = Cast <to = 1> (h)", ("5", "4"), 17, False),
    ],
)
def test_an_offset_passes_weights_of_the_same_precision_that_sum_to_one(to_weights, sizes, opset, whole):
    model = attention(to_weights, *sizes, opset=opset)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert (folded.graph.node[-1].op_type == "Transpose") is whole
    assert_aligned(model, folded)
    for length in (1, 5) if sizes == ("L", "L") else (1, 3) if "L" in sizes else (5,):
        rows = length if sizes[1] == "L" else 4
        feeds = {"x": weights(3, 2, 3, length), "z": 3 * weights(4, 2, rows, length)}
        assert_same(run(model, feeds), run(folded, feeds), 64.0)


def test_an_offset_does_not_pass_a_dropout_that_drops():
    graph = GRAPH.replace("WEIGHTS", "s = Softmax (z) a = Dropout (s, ratio, yes)").replace("K]", "5]")
    held = {"ratio": np.array(0.5, "f4"), "yes": np.array(True), "w": weights(1, 4, 3, 1), **batch_norm("bn", 4)}
    folded, (plan,) = fold_proto(parse(graph.replace("Q,", "5,"), held))
    assert len(plan.folds) == 1
    assert folded.graph.node[-1].op_type == "Add"


def test_rows_that_sum_to_one_by_more_than_a_rounding_take_no_offset():
    """Fractions that add up to 1.000001 would move the offset by several units in its last place."""
    graph = """(float[2, 3, 5] x) => (float[] y) {
        c = Conv (x, w)
        t = MatMul (c, m)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 1), "m": np.full((5, 2), 0.2, "f4"), **batch_norm("bn", 4)}
    assert fold_proto(parse(graph, held))[0].graph.node[-1].op_type == "MatMul"
    held["m"][0, 1] += np.float32(1e-6)
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "MatMul", "Add"], plan.outcomes
    assert_aligned(model, folded)
