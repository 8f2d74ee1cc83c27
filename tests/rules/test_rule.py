"""What all rules ask about a node."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from bnfold.ir.op_views import constant_shape
from bnfold.rules.reasons import REASONS
from bnfold.rules.table import RULES
from bnfold.rules.without_rule import NO_RULE, no_rule
from tests.builders import batch_norm, parse, weights
from tests.folding import feeds_for, fold_proto


@pytest.mark.parametrize("shape", [(2, 3), None, (2, "N")])
def test_the_shape_of_a_constant_is_known_with_or_without_its_data(shape):
    value = SimpleNamespace(shape=shape)
    constants = SimpleNamespace(evaluate=lambda _: np.zeros((2, 3)))
    fake = SimpleNamespace(inputs=[None, value], graph=SimpleNamespace(constants=constants))
    assert constant_shape(fake, 1) == (2, 3)


def test_the_shape_of_a_constant_is_read_off_without_its_data():
    fake = SimpleNamespace(inputs=[SimpleNamespace(shape=(2, 3))], graph=None)
    assert constant_shape(fake, 0) == (2, 3)


def test_every_operator_of_the_newest_opset_has_a_rule_or_a_reason():
    """A later onnx that brings operators fails here until each is said to be linear, nonlinear, or has a rule."""
    newest = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    without = [op for names in NO_RULE.values() for op in names.split()]
    new = sorted(newest - set(RULES) - set(without))
    assert not new, f"add these operators of opset {onnx.defs.onnx_opset_version()} to rules/without_rule.py: {new}"
    assert len(without) == len(set(without))
    assert not set(without) & set(RULES)
    old = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    plain = {op for op in without if "::" not in op}
    assert plain - old <= {"SimplifiedLayerNormalization"}, "onnxruntime's own name in onnx's domain"


@pytest.mark.parametrize("reason", NO_RULE)
def test_an_operator_without_a_rule_gets_its_reason(reason):
    for op in NO_RULE[reason].split():
        assert no_rule(SimpleNamespace(op=op, label=op)).reason == reason
    assert set(NO_RULE) <= set(REASONS)


@pytest.mark.parametrize("opset", range(22, onnx.defs.onnx_opset_version() + 1))
def test_networks_of_the_newest_opsets_fold(opset):
    """Conv, pools, Reshape, Cast and their like came again in opsets 22 to 25; onnx's own evaluator runs them."""
    graph = """(float[2, 3, 8, 8] x) => (float[2, 5] y) {
        t = Conv <pads = [1, 1, 1, 1]> (x, w)
        n = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        r = Relu (n)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = Dropout (p)
        e = Cast <to = 1> (d)
        f = ConvTranspose (e, v)
        g = GlobalAveragePool (f)
        o = BatchNormalization (g, bn_scale, bn_bias, bn_mean, bn_var)
        s = Squeeze (o, axes)
        q = Identity (s)
        y = Gemm (q, m)
    }"""
    held = {
        "w": weights(1, 4, 3, 3, 3), "v": weights(2, 4, 4, 2, 2), "m": weights(3, 4, 5), "axes": np.array([2, 3]),
        **batch_norm("bn", 4),
    }  # fmt: skip
    model = parse(graph, held, opset=opset, ir_version=10)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 2, plan.outcomes
    feeds = feeds_for(model)
    ((expected,), (actual,)) = (ReferenceEvaluator(each).run(None, feeds) for each in (model, folded))
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
