"""The tests that each operator has: its cases, their variations, and its rows in the operator-context matrix."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.matrix.matrix import check_row
from tests.matrix.row import Row
from tests.rules.case import Case, check, check_fed_constants, check_further_outputs, folding


class CaseTests:
    """For a class of tests that names its ``cases``."""

    cases: Sequence[Case]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each case, the variations for those that fold."""
        if "case" in metafunc.fixturenames:
            cases = self.cases if metafunc.function.__name__ == "test_case" else folding(list(self.cases))
            metafunc.parametrize("case", cases, ids=lambda case: case.name)
        if "row" in metafunc.fixturenames:
            metafunc.parametrize("row", self.rows, ids=lambda row: row.name)

    def test_case(self, case: Case) -> None:
        """What must fold does and computes the same; what must not is kept for the right reason."""
        check(case)

    def test_a_constant_that_is_fed(self, case: Case) -> None:
        """Each constant in turn becomes an input of the model: what still folds computes the same."""
        check_fed_constants(case)

    def test_a_value_that_is_an_output_too(self, case: Case) -> None:
        """Each value in turn becomes an output of the model: what still folds computes the same."""
        check_further_outputs(case)


class OperatorTests(CaseTests):
    """For a class of tests of an operator: names its ``cases`` and its ``rows``."""

    rows: Sequence[Row]

    def test_an_operator_between_a_transform_and_a_layer(self, row: Row, matrix_record: dict[str, object]) -> None:
        """What becomes of each affine operator before and behind it is as recorded; what folds computes the same."""
        check_row(row, matrix_record)
