"""Reshape, Flatten, Squeeze, Unsqueeze and Expand."""

import numpy as np
import pytest

from bnfold.rules.layout import MOST_ENTRIES, PRIMES, Unmovable, reshaped
from tests.builders import batch_norm, make, node, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto
from tests.rules.cases.reshape import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestReshape(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize(
    ("before", "after", "array", "expected"),
    [
        ((2, 3, 4), (2, 12), (1, 3, 1), (1, 12)),
        ((2, 3, 4), (6, 4), (1, 3, 1), (6, 1)),
        ((2, 3, 4), (6, 4), (1, 1, 4), (1, 4)),
        ((2, 3, 4), (2, 3, 2, 2), (1, 3, 1), (1, 3, 1, 1)),
        ((2, 3, 1, 4), (2, 3, 4), (1, 3, 1, 1), (1, 3, 1)),
        ((2, 3), (2, 3, 1, 1), (1, 3), (1, 3, 1, 1)),
        ((2, 3, 1, 1), (2, 3), (1, 3, 1, 1), (1, 3)),
        ((None, 6), (None, None, 6), (1, 6), (1, 1, 6)),
        ((None, None, 6), (None, 6), (1, 1, 6), (1, 6)),
        ((None, 6), (None, 2, 3), (1, 6), (1, 2, 3)),
        (("N", 6), ("N", 2, 3), (1, 6), (1, 2, 3)),
        (("N", 4, "H"), ("N", 2, 2, "H"), (1, 4, 1), (1, 2, 2, 1)),
        (("N", "C", 4), ("C", "N", 4), (1, 1, 4), (1, 1, 4)),
        ((None, 4, None), (None, 4), (1, 4, 1), None),  # which of the two axes has the 4?
        ((None, 3), (None, 4), (1, 3), None),
        (("N", 3), ("N", 4), (1, 3), None),
        ((2, 3), (2, 4), (1, 3), None),
        ((0, 3), (0, 4), (1, 3), None),
        ((5, 3), (None, None, 3), (1, 3), None),
        ((2**12, 2**12), (2**24,), (2**12, 1), None),
        ((2**11, 2**11), (2**22,), (2**11, 1), (2**22,)),
        (tuple("abcdefghi"), (None,), (1,) * 9, None),
        ((None,), tuple("abcdefghi"), (1,), None),
    ],
)
def test_an_array_over_one_shape_reshaped_to_another(before, after, array, expected):
    """As numpy reshapes the broadcast array; where the result is not certain it is refused."""
    known = (*before, *after)
    values = np.arange(np.prod(array), dtype="f8").reshape(array)
    if expected is None:
        with pytest.raises(Unmovable):
            reshaped(values, before, after)
        return
    made = reshaped(values, before, after)
    assert made.shape == expected
    if all(isinstance(dim, int) for dim in known):
        full = np.broadcast_to(values, before).reshape(after)
        np.testing.assert_array_equal(np.broadcast_to(made, after), full)


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (4,)), ((4,), (2, 3)), (("N", 4), ("N", 5)), ((0, 3), (2, 3)), ((2, 3), (0, 3)), ((2, None), (0, None))],
)
def test_shapes_of_different_sizes_are_refused(before, after):
    for one, other in ((before, after), (after, before)):
        with pytest.raises(Unmovable):
            reshaped(np.ones((1,) * len(one)), one, other)


def test_the_numbers_for_unknown_dimensions_are_primes():
    """They are also larger than any product of real sizes over which an array may be broadcast."""
    assert len(set(PRIMES)) == len(PRIMES)
    for prime in PRIMES:
        assert prime > MOST_ENTRIES
        assert all(prime % divisor for divisor in range(2, int(prime**0.5) + 1))


def test_several_unknown_dimensions_are_reported():
    with pytest.raises(Unmovable, match="several"):
        reshaped(np.ones((1, 1, 1)), (None, None, 4), (8, 4))


def test_a_repeated_tensor_has_one_transform():
    """A tensor that is repeated can't have two factors, nor can one with a new axis in front."""
    for target in ([2, 4, 3], [2, 2, 4, 3]):
        held = {"w": weights(1, 6, 3), "n": np.array(target), "j": weights(2, 2, 1, 1) + 2}
        shape = [4, 6]
        nodes = [
            node("MatMul", ["x", "w"], ["c"]),
            node("Expand", ["c", "n"], ["d"]),
            node("Mul", ["d", "j"], ["e"]),
            node("Sigmoid", ["e"], ["y"]),
        ]
        model = make(nodes, [tensor("x", shape)], [tensor("y", target)], held)
        folded, (plan,) = fold_proto(model)
        assert plan.folds == []
        assert_equivalent(model, folded, 1.0)


def test_an_expand_to_a_computed_shape_passes_no_transform_per_channel():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    graph = """(float[1, 3, 4, 4] x, int64[n] to) => (float[] y) {
        c = Conv (x, w)
        d = Expand (c, to)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert (kept.reason, "rank" in kept.detail) == ("unknown-shape", True)
