"""The record of the operator-context matrix, whose rows are tested with their operators (``tests/rules``)."""

from tests.matrix.matrix import read_record
from tests.rules.all_cases import ROWS


def test_the_record_has_each_row_and_no_other():
    names = [row.name for row in ROWS]
    assert sorted(names) == sorted(set(names))
    assert read_record().keys() == set(names)
