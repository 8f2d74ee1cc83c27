"""Transpose."""

from tests.rules.cases.transpose import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestTranspose(OperatorTests):
    cases, rows = CASES, ROWS
