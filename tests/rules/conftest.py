"""What the tests of all operators share."""

import pytest

from tests.matrix.matrix import read_record


@pytest.fixture(scope="session")
def matrix_record():
    """The recorded outcomes of the operator-context matrix."""
    return read_record()
