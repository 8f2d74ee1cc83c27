"""Operators that pick or replace entries: GatherElements, GatherND, ReverseSequence, Tile, Where, the Scatters."""

from tests.rules.cases.indexing import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestIndexing(OperatorTests):
    cases, rows = CASES, ROWS
