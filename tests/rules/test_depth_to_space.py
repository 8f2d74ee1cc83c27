"""DepthToSpace and SpaceToDepth."""

import numpy as np
import pytest

from tests.builders import batch_norm, bn_node, make, node, normal, parse, tensor, weights
from tests.folding import assert_equivalent, fold_and_compare, fold_proto
from tests.rules.cases.depth_to_space import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestDepthToSpace(OperatorTests):
    cases, rows = CASES, ROWS


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_with_a_transform_for_each_sample(mode):
    """Channels that become one have equal factors, but each sample has its own."""
    j, few = weights(3, 2, 2, 1, 1) + 2, weights(4, 2, 2, 1, 1) + 2
    k = np.concatenate([few] * 4, axis=1) if mode == "DCR" else np.repeat(few, 4, axis=1)
    nodes = [
        node("Mul", ["x", "k"], ["c"]),
        node("DepthToSpace", ["c"], ["d"], blocksize=2, mode=mode),
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 8, 3, 3])], [tensor("y", [2, 2, 6, 6])], {"k": k, "j": j})
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("gains", [[0.5, 1.0, 2.0, 4.0], [4.0, 2.0, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize(("behind", "mode"), [(False, "DCR"), (False, "CRD"), (True, None)])
def test_channels_that_become_one_need_one_transform(gains, mode, behind):
    """Whichever of the channels has the larger scale."""
    op = "SpaceToDepth" if behind else "DepthToSpace"
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 1 if behind else 4, 3, 1, 1), "v": weights(2, 2, 1, 1, 1)}
    held["bn_scale"], held["bn_var"] = np.array(gains, "f4"), np.ones(4, "f4")
    held["bn_mean"] = held["bn_bias"] = np.zeros(4, "f4")
    moved = node(op, ["c" if behind else "b"], ["d"], blocksize=2, **({} if behind else {"mode": mode}))
    middle = (
        [node("Conv", ["x", "w"], ["c"]), moved, bn_node("d", "e", "bn")]
        if behind
        else [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["s"]), bn_node("s", "b", "bn"), moved,
              node("Conv", ["d", "v"], ["e"])]
    )  # fmt: skip
    nodes = [*middle, node("Sigmoid", ["e"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (len(set(gains)) == 1), plan.outcomes
    assert_equivalent(model, folded, 512.0)


def test_rearranged_positions_pass_no_transform_that_varies_along_them():
    graph = """(float[2, 4, 4, 4] x) => (float[] y) {
        a = Mul (x, j)
        b = DepthToSpace <blocksize = 2> (a)
        y = Mul (b, k)
    }"""
    fold_and_compare(parse(graph, {"k": normal(8), "j": normal(1)}))
