"""Powers, roots, absolute values and norms; deviations written out."""

import pytest

from tests.folding import fold_proto
from tests.rules.cases.power import CASES, ROWS
from tests.rules.operator_tests import OperatorTests
from tests.verification.aligned import assert_aligned


class TestPower(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_proof_follows(case):
    model = case.build()
    assert_aligned(model, fold_proto(model, **case.options)[0])
