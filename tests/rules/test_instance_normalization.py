"""InstanceNormalization and GroupNormalization."""

import numpy as np
import pytest

from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.verification.equivalence.alignment import align
from tests.builders import batch_norm, parse, weights
from tests.folding import assert_equivalent, fold_proto, reasons
from tests.rules.cases.instance_normalization import CASES, GROUPS, ROWS
from tests.rules.operator_tests import OperatorTests


class TestInstanceNormalization(OperatorTests):
    cases, rows = CASES, ROWS


ALIKE = {name: np.repeat(data[:2], 3) for name, data in batch_norm("bn", 6).items()}
"""A BatchNorm that does the same to all channels of a group."""


@pytest.mark.parametrize(
    ("channels", "bn", "outcome"),
    [
        ("6", ALIKE, "folds"),
        ("6", batch_norm("bn", 6), "channel-axis"),
        ("6", {**ALIKE, "bn_bias": weights(3, 6)}, "channel-axis"),
        ("C", ALIKE, "unknown-shape"),
    ],
)
def test_a_group_normalization_of_opset_18_has_a_scale_per_group(channels, bn, outcome):
    """The operator set calls it deprecated, so that onnx's checker refuses it; onnxruntime runs it."""
    graph = GROUPS.replace("[N, 6,", f"[N, {channels},")
    model = parse(graph, {"s": weights(1, 2), "c": weights(2, 2), **bn}, opset=18)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == [outcome]
    if outcome == "folds":
        assert_equivalent(model, folded)
        found = align(OnnxGraphs(model), OnnxGraphs(folded))
        assert not found.mismatches and not found.wrong_outputs
