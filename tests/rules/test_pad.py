"""Pad."""

from types import SimpleNamespace

import numpy as np
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import load_bytes
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.rules.table import lookup
from tests.builders import make, node, tensor
from tests.rules.cases.pad import CASES, ROWS
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
        current=lambda value: current if value is pad.inputs[0] else IDENTITY,
    )
    alternatives = lookup("Pad").propagate(pad, context)
    assert isinstance(alternatives, list) is folds
