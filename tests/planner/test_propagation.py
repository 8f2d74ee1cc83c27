"""How a transform is propagated, and what it leaves behind."""

from types import SimpleNamespace

import numpy as np
import pytest

from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.planner.plan import ResidualOp
from tests.builders import ANY, STATISTICS, X, batch_norm, bn, make, node, normal, parse, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto


@pytest.mark.parametrize(
    "nodes",
    [
        [bn("c", "d"), node("Add", ["x", "d"], ["y"])],
        [bn("c", "d"), node("Conv", ["d", "w"], ["e"]), node("Add", ["x", "e"], ["y"])],
        [node("Conv", ["x", "w"], ["t"]), node("Dropout", ["c"], ["d"]), node("Add", ["t", "d"], ["a"]), bn("a")],
        [node("Dropout", ["c"], ["d"]), node("Mul", ["d", "k"], ["e"]), node("Add", ["x", "e"], ["y"])],
    ],
    ids=["added", "convolved", "dropout", "chain"],
)
def test_no_transform_rests_on_a_constant(nodes):
    held = {"c": normal(2, 4, 6, 6), "w": normal(4, 4, 1, 1), "k": normal(4, 1, 1), **STATISTICS}
    fold_and_compare(make(nodes, [X], [ANY], held))


def test_a_failed_attempt_is_undone():
    """The offset tries the first operand, whose MatMul absorbs none; what it passed there is no part of the fold."""
    held = {**batch_norm("bn", 4, 1), "k": weights(1, 6, 4), "v": weights(2, 4, 6, 1, 1)}
    held["bn_scale"] = held["bn_var"] = np.ones(4, "f4")  # scale 1
    graph = """(float[1, 3, 3, 6] x, float[1, 6, 3, 3] z) => (float[1, 4, 3, 3] y) {
        m = MatMul (x, k)
        a = Transpose <perm = [0, 3, 1, 2]> (m)
        [layer] c = Conv (z, v)
        d = Add (a, c)
        [bn_bn] b = BatchNormalization <epsilon = 0.0> (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    (fold,) = plan.folds
    assert ([n.name for n in fold.into], fold.via) == (["layer"], ("Add",))
    assert_equivalent(model, folded, 512.0)


SCALE, BOTH = Affine.along(1, [2.0, 3.0], [0.0, 0.0]), Affine.along(1, [2.0, 3.0], [1.0, -1.0])
OTHER_OFFSET, OTHER_SCALE = Affine.along(1, [2.0, 3.0], [5.0, 5.0]), Affine.along(1, [2.0, 4.0], [1.0, -1.0])


@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        ("Add", BOTH, None, ("target", SCALE)),
        ("Add", None, BOTH, ("source", SCALE)),
        ("Add", BOTH, OTHER_OFFSET, ()),
        ("Add", BOTH, OTHER_SCALE, "consumers"),
        ("Max", BOTH, None, ("target", BOTH)),
        ("Max", None, BOTH, ("source", BOTH)),
        ("Max", BOTH, BOTH, ()),
        ("Max", BOTH, OTHER_OFFSET, "consumers"),
        ("Max", Affine.along(1, [2.0, -3.0], [0.0, 0.0]), None, "nonlinear"),
    ],
)
def test_what_a_residual_operator_passes(op, before, after, expected):
    """An Add ties the scales alone, a Max the whole transform."""
    residual = ResidualOp(op, (), SimpleNamespace(name="source"), SimpleNamespace(name="target"), IDENTITY)
    alternatives = residual.propagate(before, after)
    if isinstance(expected, str):
        assert alternatives.reason == expected
    elif expected:
        (((value, transform),),) = alternatives
        assert value.name == expected[0]
        assert transform.agrees(expected[1])
    else:
        assert alternatives == [[]]
