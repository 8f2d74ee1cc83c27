"""Einsum."""

import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import align
from tests.builders import ANY, make, node, tensor
from tests.rules.cases.einsum import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestEinsum(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(("other", "same"), [("bct,bst->bsc", False), ("bct,bst->bcs", True)])
def test_the_proof_tells_products_of_values_by_their_equations(other, same):
    """A square result has the same shape the wrong way round."""
    nodes = [node("Relu", ["x"], ["r"]), node("Softmax", ["x"], ["s"])]
    models = [
        make([*nodes, node("Einsum", ["r", "s"], ["y"], equation=equation)], [tensor("x", [2, 4, 4])], [ANY], {})
        for equation in ("bct,bst->bcs", other)
    ]
    found = align(*map(OnnxGraphs, models))
    assert (not found.mismatches and not found.wrong_outputs) == same
