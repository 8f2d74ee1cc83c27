"""ConvTranspose; what it shares with Conv is in test_linear_layers.py and test_quantized_layers.py."""

from tests.rules.cases.conv_transpose import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestConvTranspose(OperatorTests):
    cases, rows = CASES, ROWS
