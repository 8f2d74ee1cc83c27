"""Concat."""

from tests.builders import ANY, STATISTICS, bn, make, node, normal, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto
from tests.rules.cases.concat import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestConcat(OperatorTests):
    cases, rows = CASES, ROWS


def test_a_concat_of_too_many_channels_and_positions_is_kept():
    """Neither the channels nor the positions alone are too many, but their product is."""
    nodes = [
        node("Sigmoid", ["data"], ["x"]),
        node("Mul", ["x", "k"], ["m"]),
        node("Concat", ["m", "z"], ["c"], axis=2),
        node("Sigmoid", ["c"], ["y"]),
    ]
    inputs = [tensor(name, [1, 4096, 2048, 1]) for name in ("data", "z")]
    model = make(nodes, inputs, [tensor("y", None)], {"k": weights(1, 4096, 1, 1) + 9})
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert "huge size" in kept.detail


def test_a_constant_joins_channels_of_any_number():
    """A factor for each row passes even if the number of channels is unknown."""
    held = {"k": weights(1, 1, 1, 4, 1) + 2, "j": weights(2, 1, 1, 4, 1) + 2, "q": weights(3, 1, 2, 4, 3)}
    nodes = [
        node("Mul", ["x", "k"], ["c"]),
        node("Concat", ["c", "q"], ["d"], axis=1),
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, "C", 4, 3])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert {n.op for n in plan.folds[0].into} == {"Mul", "Concat"}, plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_a_constant_beside_a_value_of_unknown_height():
    nodes = [
        node("Conv", ["x", "w"], ["t"]),
        node("Concat", ["t", "k"], ["z"], axis=2),
        bn("z"),
    ]
    held = {"w": normal(4, 3, 1, 1), "k": normal(2, 4, 3, 8), **STATISTICS}
    model = make(nodes, [tensor("x", ["N", 3, "H", 8])], [ANY], held)
    assert fold_and_compare(model, {"x": normal(2, 3, 5, 8)}) == 1
