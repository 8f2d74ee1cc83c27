"""Operators that compute with integers, and sequences: what is kept beside them has the right reason."""

from tests.rules.cases.integers import CASES
from tests.rules.operator_tests import CaseTests


class TestIntegers(CaseTests):
    cases = CASES
