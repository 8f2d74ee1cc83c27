"""LayerNormalization."""

from tests.rules.cases.layer_normalization import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestLayerNormalization(OperatorTests):
    cases, rows = CASES, ROWS
