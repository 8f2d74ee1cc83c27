"""Whole blocks of well-known networks."""

from tests.planner.cases.networks import CASES
from tests.rules.operator_tests import CaseTests


class TestNetworks(CaseTests):
    cases = CASES
