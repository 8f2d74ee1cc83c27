"""What all rules ask about a node."""

from types import SimpleNamespace

import numpy as np
import pytest

from bnfold.ir.op_views import constant_shape


@pytest.mark.parametrize("shape", [(2, 3), None, (2, "N")])
def test_the_shape_of_a_constant_is_known_with_or_without_its_data(shape):
    value = SimpleNamespace(shape=shape)
    constants = SimpleNamespace(evaluate=lambda _: np.zeros((2, 3)))
    fake = SimpleNamespace(inputs=[None, value], graph=SimpleNamespace(constants=constants))
    assert constant_shape(fake, 1) == (2, 3)


def test_the_shape_of_a_constant_is_read_off_without_its_data():
    fake = SimpleNamespace(inputs=[SimpleNamespace(shape=(2, 3))], graph=None)
    assert constant_shape(fake, 0) == (2, 3)
