"""In which order affine operators are folded: what a BatchNorm needs comes before factors."""

from __future__ import annotations

import random

import numpy as np

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.planner.candidates import candidates_of
from sample_models.build import batch_norm, bn_node
from tests.builders import make, node, tensor, weights
from tests.folding import assert_equivalent, fold_proto
from tests.fuzz.most_folds import MOST_CANDIDATES, searched
from tests.fuzz.networks import network


def test_a_factor_does_not_take_the_place_of_a_batch_norm():
    """Its gain could go into the factor, if that did not go into the BatchNorm."""
    held = {
        **batch_norm("n", 4),
        "t": weights(1, 4, 1, 1),
        "w": weights(2, 4, 4, 1, 1),
        "k": np.float32([2, 3, 0.5, 1]).reshape(4, 1, 1),
    }
    nodes = [
        node("HardSwish", ["x"], ["h"]),
        node("Add", ["h", "t"], ["c"]),
        bn_node("c", "n", "n"),
        node("Conv", ["n", "w"], ["y"]),
        node("Mul", ["n", "k"], ["m"]),
        node("Tanh", ["m"], ["z"]),
    ]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor(name, [1, 4, 3, 3]) for name in "yz"], held)
    folded, (plan,) = fold_proto(model)
    assert "BatchNormalization" in [fold.op.form for fold in plan.folds]
    assert "BatchNormalization" not in [each.op_type for each in folded.graph.node]
    assert_equivalent(model, folded, 512.0)


def test_no_order_or_direction_folds_more():
    compared = 0
    for case in range(100, 140):
        scopes = OnnxGraphs(network(random.Random(case).randrange)).scopes
        if len(scopes) == 1 and 1 < len(candidates_of(scopes[0])) <= MOST_CANDIDATES:
            usual, most, _ = searched(scopes[0])
            assert usual == most, case
            compared += 1
    assert compared > 8
