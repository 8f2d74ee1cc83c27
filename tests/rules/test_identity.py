"""Identity, Dropout, Cast, and operators that read the shape alone."""

import numpy as np
import pytest

from tests.builders import chain, node, of_opset, tensor
from tests.folding import assert_equivalent, fold_proto, reasons
from tests.rules.cases.identity import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestIdentity(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes", "folds"),
    [
        (12, ["c", "", "no"], {}, True),
        (12, ["c", "", "yes"], {}, False),
        (12, ["c"], {}, True),
        (13, ["c", "ratio", "yes"], {}, False),
        (13, ["c", "ratio"], {}, True),
        (10, ["c"], {"ratio": 0.5}, True),
    ],
)
def test_a_dropout_is_passed_unless_it_is_in_training_mode(opset, inputs, attributes, folds):
    held = {"no": np.array(False), "yes": np.array(True), "ratio": np.array(0.5, "f4")}
    model = chain(node("Dropout", inputs, ["d"], **attributes), held={k: v for k, v in held.items() if k in inputs})
    of_opset(model, opset)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is folds
    if folds:
        assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("read", [False, True])
def test_a_dropout_whose_mask_is_an_output_is_kept(read):
    model = chain(node("Dropout", ["c"], ["d", *(["mask"] if read else [])]))
    if read:
        model.graph.output.append(tensor("mask", [1, 4, 4, 4], 9))
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is not read


@pytest.mark.parametrize("opset", [7, 8, 11])
def test_a_dropout_is_passed_from_opset_7_to_11(opset):
    _, (plan,) = fold_proto(of_opset(chain(node("Dropout", ["c"], ["d"])), opset))
    assert plan.folds


@pytest.mark.parametrize("attributes", [{}, {"is_test": 0}, {"is_test": 1}])
def test_a_dropout_of_opset_6_needs_is_test(attributes):
    model = of_opset(chain(node("Dropout", ["c"], ["d"], **attributes)), 6)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if attributes.get("is_test") else "training-mode"]
