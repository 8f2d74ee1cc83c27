"""Operators that no transform passes."""

from tests.rules.cases.nonlinear import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestNonlinear(OperatorTests):
    cases, rows = CASES, ROWS
    test_a_constant_that_is_fed = test_a_value_that_is_an_output_too = None  # nothing folds that could be varied
