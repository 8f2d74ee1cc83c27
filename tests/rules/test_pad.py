"""Pad."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load_bytes
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.table import lookup
from bnfold.verification.equivalence.alignment import align
from tests.builders import batch_norm, make, node, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto
from tests.rules.cases.pad import (
    CASES,
    ROWS,
    around_a_shortcut_of_new_channels,
    before_a_pad_of_channels,
    behind_a_pad_of_channels,
)
from tests.rules.operator_tests import OperatorTests


class TestPad(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(("current", "folds"), [(IDENTITY, False), (Affine.along(1, [2.0, 4.0], [1.0, 0.0]), True)])
def test_padding_is_judged_with_the_transform_of_earlier_folds(current, folds):
    """The transform of earlier folds comes before the proposed one: together they must keep the padding value."""
    held = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.array(0.5, "f4")}
    model = make([node("Pad", ["x", "pads", "v"], ["y"])], [tensor("x", [1, 2, 4, 4])], [tensor("y", None)], held)
    (scope,) = OnnxGraphs(load_bytes(model.SerializeToString()).proto).scopes
    (pad,) = scope.nodes
    then = Affine.along(1, [1.0, 2.0], [0.0, -2.0])  # maps 2 to one number, 0.5 to two
    context = SimpleNamespace(
        proposed=lambda value: then if value is pad.inputs[0] else None,
        current=lambda value: current,
    )
    alternatives = lookup("Pad").propagate(pad, context)
    assert isinstance(alternatives, list) is folds


def test_a_batch_norm_between_a_pad_and_a_layer_is_proved():
    """What is padded is scaled and shifted too, so that the layer takes both; it is one function with a padded one."""
    graph = """(float[N, 4, 6, 6] x) => (float[] y) {
        p = Pad <mode = "constant"> (x, pads)
        b = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
        y = Conv (b, w)
    }"""
    held = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": weights(1, 4, 4, 3, 3), **batch_norm("bn", 4)}
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    assert_equivalent(model, folded)
    pair = [OnnxGraphs(each) for each in (model, folded)]
    found = align(*pair)
    assert not found.mismatches and not found.wrong_outputs
    bias = next(tensor for tensor in folded.graph.initializer if tensor.name == folded.graph.node[-1].input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * np.float32(1.01), bias.name))
    assert align(OnnxGraphs(model), OnnxGraphs(folded)).wrong_outputs


@pytest.mark.parametrize(
    "case", [before_a_pad_of_channels, behind_a_pad_of_channels, around_a_shortcut_of_new_channels]
)
def test_new_channels_are_proved(case):
    """They hold constants, which depend on nothing; a number that is off by a thousandth is found."""
    model = case()
    folded, _ = fold_proto(model)
    found = align(OnnxGraphs(model), OnnxGraphs(folded))
    assert not found.mismatches and not found.wrong_outputs
    for held in folded.graph.initializer:
        data = onnx.numpy_helper.to_array(held)
        if data.dtype.kind == "f":
            held.CopyFrom(onnx.numpy_helper.from_array(data * np.float32(1.001) + np.float32(1e-3), held.name))
            found = align(OnnxGraphs(model), OnnxGraphs(folded))
            assert found.mismatches or found.wrong_outputs, held.name
            held.CopyFrom(onnx.numpy_helper.from_array(data, held.name))
