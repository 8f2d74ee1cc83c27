"""How far the planner looks, which strategy it takes, and which candidates it is asked for."""

import numpy as np
import pytest

import bnfold.planner.planner
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.numerics.affine import IDENTITY
from bnfold.planner.candidates import candidates_of
from bnfold.planner.propagation import Propagation
from tests.builders import batch_norm, bn_node, make, node, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto, reasons


def there_and_back(source, target):
    """Return two Transposes between two tensors, which cancel."""
    between = f"{source}_turned"
    return [
        node("Transpose", [source], [between], perm=[1, 0, *range(2, 4)]),
        node("Transpose", [between], [target], perm=[1, 0, *range(2, 4)]),
    ]


@pytest.mark.parametrize(("budgets", "folds"), [((1,), False), ((1, 2), False), ((1, 20), True), ((20,), True)])
def test_a_transform_that_reaches_too_many_operators_is_kept(monkeypatch, budgets, folds):
    monkeypatch.setattr(bnfold.planner.planner, "BUDGETS", budgets)
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
def test_residual_operators_are_searched_for_within_each_budget(monkeypatch, budgets):
    """The Add behind MatMul, and the maximum that replaces a Relu."""
    monkeypatch.setattr(bnfold.planner.planner, "BUDGETS", budgets)
    held = {**batch_norm("bn", 4, 1), "k": weights(1, 6, 4), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    turned = [node("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]), *there_and_back("t", "d")]
    product = [node("MatMul", ["x", "k"], ["m"]), *turned, bn_node("d", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(product, [tensor("x", [1, 3, 3, 6])], [tensor("y", [1, 4, 3, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert [fold.residual.op for fold in plan.folds] == ["Add"]
    assert_equivalent(model, folded, 512.0)
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
    assert [fold.residual.op for fold in plan.folds] == ["Max"]
    assert_equivalent(model, folded, 512.0)


def test_an_attempt_depends_on_all_tensors_around_its_operators():
    """Their transforms may change with a later fold, and the attempt's result with them."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    graph = """(float[1, 3, 4, 4] x, float[1, 4, 4, 4] a) => (float[] y) {
        c = Conv (x, w)
        d = Add (c, a)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    scope = OnnxGraphs(parse(graph, held)).scopes[0]
    (op,) = candidates_of(scope)
    seen = set()
    state = bnfold.planner.planner.Planner(scope, threshold=False)
    Propagation(state, op, 512, seen).run([(op.source, op.transform), (op.target, IDENTITY)])
    assert {value.name for value in seen} >= {"a", "c", "d"}


@pytest.mark.parametrize("wide", ["in front", "behind"])
def test_the_strategy_that_changes_the_fewest_layers_is_taken(wide):
    """Two layers in front and one behind, or one in front and two behind."""
    held = {**batch_norm("bn", 4, 1), **{name: weights(i, 2, 3, 1, 1) for i, name in enumerate(("k", "l"))}}
    held |= {"w": weights(3, 4, 3, 1, 1), "v": weights(4, 2, 4, 1, 1), "u": weights(5, 2, 4, 1, 1)}
    front = [
        node("Conv", ["x", "k"], ["p"]),
        node("Conv", ["x", "l"], ["q"]),
        node("Concat", ["p", "q"], ["c"], axis=1),
    ]
    one = [node("Conv", ["x", "w"], ["c"])]
    behind = [node("Conv", ["b", "v"], ["d"]), node("Sigmoid", ["d"], ["s"])]
    more = [node("Conv", ["b", "u"], ["e"]), node("Sigmoid", ["e"], ["t"]), node("Add", ["s", "t"], ["y"])]
    nodes = (
        [*front, bn_node("c", "b", "bn"), *behind]
        if wide == "in front"
        else [*one, bn_node("c", "b", "bn"), *behind, *more]
    )
    output = "s" if wide == "in front" else "y"
    used = {name: data for name, data in held.items() if any(name in n.input for n in nodes)}
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor(output, [1, 2, 4, 4])], used)
    folded, (plan,) = fold_proto(model)
    assert [(fold.direction, len(fold.into)) for fold in plan.folds] == [
        ("downstream" if wide == "in front" else "upstream", 1)
    ]
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": ["first_bn"]}, ["folds", "skipped"]),
        ({"skip": ["first_bn"]}, ["skipped", "folds"]),
        ({"only": ["first_bn"], "skip": ["first_bn"]}, ["skipped", "skipped"]),
        ({"only": ["b"], "skip": ["second_bn"]}, ["folds", "skipped"]),
    ],
)
def test_only_and_skip(options, expected):
    held = {**batch_norm("first", 4, 1), **batch_norm("second", 4, 2), "w": weights(1, 4, 3, 1, 1)}
    held["v"] = weights(2, 4, 4, 1, 1)
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        [first_bn] b = BatchNormalization (c, first_scale, first_bias, first_mean, first_var)
        s = Sigmoid (b)
        d = Conv (s, v)
        [second_bn] e = BatchNormalization (d, second_scale, second_bias, second_mean, second_var)
        y = Sigmoid (e)
    }"""
    _, (plan,) = fold_proto(parse(graph, held), **options)
    assert reasons(plan) == expected
