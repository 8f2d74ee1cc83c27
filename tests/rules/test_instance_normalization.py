"""InstanceNormalization."""

from tests.rules.cases.instance_normalization import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestInstanceNormalization(OperatorTests):
    cases, rows = CASES, ROWS
