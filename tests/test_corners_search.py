"""Corners of the planner's search: how far it looks, and what may become a maximum."""

import numpy as np
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run

import bnfold.plan


def there_and_back(source, target):
    """Two operators between two values, which change nothing."""
    between = f"{source}_turned"
    return [
        node("Transpose", [source], [between], perm=[1, 0, *range(2, 4)]),
        node("Transpose", [between], [target], perm=[1, 0, *range(2, 4)]),
    ]


@pytest.mark.parametrize(("budgets", "folds"), [((1,), False), ((1, 2), False), ((1, 20), True), ((20,), True)])
def test_a_map_that_reaches_too_far_stays(monkeypatch, budgets, folds):
    monkeypatch.setattr(bnfold.plan, "BUDGETS", budgets)
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        *there_and_back("c", "d"),
        *there_and_back("d", "e"),
        bn_node("e", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    _, (plan,) = fold_proto(make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held))
    assert bool(plan.folds) is folds
    if not folds:
        ((_, kept),) = plan.outcomes
        assert (kept.reason, "too many operators" in kept.detail) == ("consumers", True)


@pytest.mark.parametrize("budgets", [(1, 1, 50), (1, 50), (50, 60, 70)])
def test_what_stays_behind_is_looked_for_as_far_as_anything(monkeypatch, budgets):
    """The Add behind a product without bias, and the maximum that a Relu becomes."""
    monkeypatch.setattr(bnfold.plan, "BUDGETS", budgets)
    held = {**batch_norm("bn", 4, 1), "k": weights(1, 6, 4), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    turned = [node("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]), *there_and_back("t", "d")]
    product = [node("MatMul", ["x", "k"], ["m"]), *turned, bn_node("d", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(product, [tensor("x", [1, 3, 3, 6])], [tensor("y", [1, 4, 3, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert [fold.stand_in.op for fold in plan.folds] == ["Add"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Relu", ["b"], ["r"]),
        *there_and_back("r", "d"),
        node("Conv", ["d", "v"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor("y", [1, 2, 3, 3])], held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert [fold.stand_in.op for fold in plan.folds] == ["Max"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("readers", [["Relu"], ["Relu", "Sigmoid"], ["Sigmoid", "Relu"], ["Relu", "Relu"], ["Sigmoid"]])
def test_a_batch_norm_becomes_a_maximum_for_its_only_reader(readers):
    held = {**batch_norm("bn", 4, 1), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn")]
    for index, reader in enumerate(readers):
        nodes.append(node(reader, ["b"], [f"r{index}"]))
        nodes.append(node("Conv", [f"r{index}", "v"], [f"d{index}"]))
        nodes.append(node("Sigmoid", [f"d{index}"], [f"y{index}"]))
    outputs = [tensor(f"y{index}", [1, 2, 4, 4]) for index in range(len(readers))]
    model = make(nodes, [tensor("x", [1, 4, 4, 4])], outputs, held)
    folded, (plan,) = fold_proto(model, threshold=True)
    assert bool(plan.folds) is (readers == ["Relu"])
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
