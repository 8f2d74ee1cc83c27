"""Einsum."""

from tests.rules.cases.einsum import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestEinsum(OperatorTests):
    cases, rows = CASES, ROWS
