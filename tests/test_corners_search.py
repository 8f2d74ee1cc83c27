"""Corners of the planner's search: how far it looks, and what may become a maximum."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from build import batch_norm, bn_node, make, node, tensor, weights
from conftest import assert_same, feeds_for, fold_proto, run

import bnfold.planner.planner
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.candidates import candidates_of
from bnfold.planner.plan import ResidualOp
from bnfold.planner.propagation import Propagation


def there_and_back(source, target):
    """Two operators between two values, which change nothing."""
    between = f"{source}_turned"
    return [
        node("Transpose", [source], [between], perm=[1, 0, *range(2, 4)]),
        node("Transpose", [between], [target], perm=[1, 0, *range(2, 4)]),
    ]


@pytest.mark.parametrize(("budgets", "folds"), [((1,), False), ((1, 2), False), ((1, 20), True), ((20,), True)])
def test_a_map_that_reaches_too_far_stays(monkeypatch, budgets, folds):
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
def test_what_stays_behind_is_looked_for_as_far_as_anything(monkeypatch, budgets):
    """The Add behind a product without bias, and the maximum that a Relu becomes."""
    monkeypatch.setattr(bnfold.planner.planner, "BUDGETS", budgets)
    held = {**batch_norm("bn", 4, 1), "k": weights(1, 6, 4), "v": weights(2, 2, 4, 1, 1)}
    held["bn_scale"] = np.abs(held["bn_scale"])
    turned = [node("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]), *there_and_back("t", "d")]
    product = [node("MatMul", ["x", "k"], ["m"]), *turned, bn_node("d", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(product, [tensor("x", [1, 3, 3, 6])], [tensor("y", [1, 4, 3, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert [fold.residual.op for fold in plan.folds] == ["Add"]
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
    assert [fold.residual.op for fold in plan.folds] == ["Max"]
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


def test_a_way_that_failed_leaves_nothing_behind():
    """The shift tries the first branch, whose product takes none; what it passed there is no part of the fold."""
    held = {**batch_norm("bn", 4, 1), "k": weights(1, 6, 4), "v": weights(2, 4, 6, 1, 1)}
    held["bn_scale"] = held["bn_var"] = np.ones(4, "f4")  # and no gain
    nodes = [
        node("MatMul", ["x", "k"], ["m"]),
        node("Transpose", ["m"], ["a"], perm=[0, 3, 1, 2]),
        node("Conv", ["z", "v"], ["c"], name="layer"),
        node("Add", ["a", "c"], ["d"]),
        bn_node("d", "b", "bn", epsilon=0.0),
        node("Sigmoid", ["b"], ["y"]),
    ]
    ends = [tensor("x", [1, 3, 3, 6]), tensor("z", [1, 6, 3, 3])]
    model = make(nodes, ends, [tensor("y", [1, 4, 3, 3])], held)
    folded, (plan,) = fold_proto(model)
    (fold,) = plan.folds
    assert ([n.name for n in fold.into], fold.via) == (["layer"], ("Add",))
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("first", [False, True])
def test_a_shift_goes_where_nobody_else_reads(first):
    """Of two operands either could take it; the readers of one would have to undo it."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 3, 1, 1)}
    held["u"], held["bn_scale"] = weights(3, 2, 4, 1, 1), np.ones(4, "f4")
    held["bn_var"] = np.ones(4, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["shared"], name="shared layer"),
        node("Conv", ["x", "v"], ["own"], name="own layer"),
        node("Conv", ["shared", "u"], ["e"], name="reader"),
        node("Add", ["own", "shared"] if first else ["shared", "own"], ["d"]),
        bn_node("d", "b", "bn", epsilon=0.0),
        node("Sigmoid", ["b"], ["y"]),
        node("Sigmoid", ["e"], ["z"]),
    ]
    outputs = [tensor("y", [1, 4, 3, 3]), tensor("z", [1, 2, 3, 3])]
    model = make(nodes, [tensor("x", [1, 3, 3, 3])], outputs, held)
    folded, (plan,) = fold_proto(model)
    assert [n.name for n in plan.folds[0].into] == ["own layer"]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize(("gain", "offset", "folds"), [(0.01, 1.0, False), (1.0, 10.0, True), (100.0, 1000.0, True)])
def test_a_shift_around_other_readers_without_statistics_is_measured_by_its_gain(gain, offset, folds):
    held = {"w": weights(1, 4, 3, 1, 1), "v": weights(2, 4, 4, 1, 1)}
    held |= {"g": np.full((4, 1, 1), gain, "f4"), "h": np.full((4, 1, 1), offset, "f4")}
    held["g"][0] *= 2  # no multiple of one number, which a recurring one would be
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Mul", ["c", "g"], ["p"]),
        node("Add", ["p", "h"], ["b"]),
        node("Sigmoid", ["b"], ["s"]),
        node("Conv", ["c", "v"], ["t"]),
        node("Sigmoid", ["t"], ["u"]),
        node("Mul", ["s", "u"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == [
        "folds" if folds else "conditioning"
    ]
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 16384.0)


def test_what_nobody_reads_needs_no_undoing():
    """A shift of any size may go to a part that is thrown away."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 4, 3, 1, 1)}
    held |= {"bn_scale": np.ones(2, "f4"), "bn_bias": np.full(2, 200.0, "f4"), "bn_mean": np.zeros(2, "f4")}
    held["bn_var"] = np.ones(2, "f4")
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Split", ["c"], ["p", "q"], axis=1),
        bn_node("p", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 2, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_weights_that_overflow_keep_their_own_batch_norm_alone():
    """Another one, which goes into more layers, is not to blame."""
    held = {name: array.astype("f2") for prefix in ("one", "two") for name, array in batch_norm(prefix, 4, 1).items()}
    held |= {name: weights(seed, 4, 4, 1, 1).astype("f2") for seed, name in enumerate("uvw")}
    held["two_scale"] = np.full(4, 60000, "f2")
    held["two_var"] = np.full(4, 1e-4, "f2")
    nodes = [
        node("Conv", ["x", "u"], ["a"]),
        node("Conv", ["x", "v"], ["c"]),
        node("Add", ["a", "c"], ["d"]),
        bn_node("d", "e", "one"),
        node("Sigmoid", ["e"], ["s"]),
        node("Conv", ["s", "w"], ["f"]),
        bn_node("f", "g", "two"),
        node("Sigmoid", ["g"], ["y"]),
    ]
    half = onnx.TensorProto.FLOAT16
    model = make(nodes, [tensor("x", [1, 4, 3, 3], half)], [tensor("y", [1, 4, 3, 3], half)], held)
    _, (plan,) = fold_proto(model)
    assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == ["folds", "overflow"]


@pytest.mark.parametrize("op", ["Split", "LSTM"])
def test_a_reader_whose_first_output_nobody_wants_is_one_all_the_same(op):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1), "r": weights(2, 1, 8, 2), "k": weights(3, 1, 8, 4)}
    if op == "Split":
        reader = node("Split", ["c"], ["", "part"], axis=1)
    else:
        reader = node("LSTM", ["s", "k", "r"], ["", "part"], hidden_size=2)
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Transpose", ["c"], ["s"], perm=[2, 0, 1]),
        reader,
        bn_node("c", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    outputs = [tensor("y", [1, 4, 6]), tensor("part", None)]
    model = make(nodes, [tensor("x", [1, 3, 6])], outputs, held, opset=13)
    folded, (plan,) = fold_proto(model)
    if op == "Split":
        assert [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes] == ["consumers"]
    else:
        assert plan.folds
        feeds = feeds_for(model)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_try_depends_on_all_that_stands_around_the_operators_it_asked():
    """Their gauges may change with a later fold, and what they answer with it."""
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Add", ["c", "a"], ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    inputs = [tensor("x", [1, 3, 4, 4]), tensor("a", [1, 4, 4, 4])]
    graph = OnnxGraphs(make(nodes, inputs, [tensor("y", None)], held)).scopes[0]
    (op,) = candidates_of(graph)
    seen = set()
    state = bnfold.planner.planner._Planner(graph, threshold=False)
    Propagation(state, op, 512, seen).run([(op.source, op.map), (op.target, IDENTITY)])
    assert {value.name for value in seen} >= {"a", "c", "d"}


GAIN, BOTH = Affine.along(1, [2.0, 3.0], [0.0, 0.0]), Affine.along(1, [2.0, 3.0], [1.0, -1.0])
SHIFTED, OTHER = Affine.along(1, [2.0, 3.0], [5.0, 5.0]), Affine.along(1, [2.0, 4.0], [1.0, -1.0])


@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        ("Add", BOTH, None, ("target", GAIN)),
        ("Add", None, BOTH, ("source", GAIN)),
        ("Add", BOTH, SHIFTED, ()),
        ("Add", BOTH, OTHER, "consumers"),
        ("Max", BOTH, None, ("target", BOTH)),
        ("Max", None, BOTH, ("source", BOTH)),
        ("Max", BOTH, BOTH, ()),
        ("Max", BOTH, SHIFTED, "consumers"),
        ("Max", Affine.along(1, [2.0, -3.0], [0.0, 0.0]), None, "nonlinear"),
    ],
)
def test_what_the_node_that_was_left_behind_passes(op, before, after, expected):
    """An Add ties the gains alone, a Max all of the map."""
    stand_in = ResidualOp(op, (), SimpleNamespace(name="source"), SimpleNamespace(name="target"), IDENTITY)
    ways = stand_in.propagate(before, after)
    if isinstance(expected, str):
        assert ways.reason == expected
    elif expected:
        (((value, map_),),) = ways
        assert value.name == expected[0]
        assert map_.agrees(expected[1])
    else:
        assert ways == [[]]


@pytest.mark.parametrize("values", [["c"], ["c", "c"], ["c", "c", "c"]])
def test_a_sum_of_any_number_of_values(values):
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Sum", values, ["d"]),
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)
