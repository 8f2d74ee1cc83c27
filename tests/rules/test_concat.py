"""Concat."""

from tests.builders import STATISTICS, normal, parse, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto
from tests.rules.cases.concat import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestConcat(OperatorTests):
    cases, rows = CASES, ROWS


def test_a_concat_of_too_many_channels_and_positions_is_kept():
    """Neither the channels nor the positions alone are too many, but their product is."""
    graph = """(float[1, 4096, 2048, 1] data, float[1, 4096, 2048, 1] z) => (float[] y) {
        x = Sigmoid (data)
        m = Mul (x, k)
        c = Concat <axis = 2> (m, z)
        y = Sigmoid (c)
    }"""
    model = parse(graph, {"k": weights(1, 4096, 1, 1) + 9})
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert "huge size" in kept.detail


def test_a_constant_joins_channels_of_any_number():
    """A factor for each row passes even if the number of channels is unknown."""
    held = {"k": weights(1, 1, 1, 4, 1) + 2, "j": weights(2, 1, 1, 4, 1) + 2, "q": weights(3, 1, 2, 4, 3)}
    graph = """(float[1, C, 4, 3] x) => (float[] y) {
        c = Mul (x, k)
        d = Concat <axis = 1> (c, q)
        e = Mul (d, j)
        y = Sigmoid (e)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert {n.op for n in plan.folds[0].into} == {"Mul", "Concat"}, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_a_constant_beside_a_value_of_unknown_height():
    graph = """(float[N, 3, H, 8] x) => (float[] y) {
        t = Conv (x, w)
        z = Concat <axis = 2> (t, k)
        y = BatchNormalization (z, s, b, m, v)
    }"""
    held = {"w": normal(4, 3, 1, 1), "k": normal(2, 4, 3, 8), **STATISTICS}
    model = parse(graph, held)
    assert fold_and_compare(model, {"x": normal(2, 3, 5, 8)}) == 1
