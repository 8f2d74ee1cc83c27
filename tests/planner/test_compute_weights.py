"""Folded weights that cannot be stored: overflow, lost bits, and which fold is given up for it."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import bnfold.planner.apply
from bnfold.ir.evaluation import NotEvaluable
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable
from tests.builders import batch_norm, bn_node, make, node, tensor, weights
from tests.folding import fold_proto, reasons


def test_folds_that_overflow_are_given_up_together(monkeypatch):
    """Planning again for each of them would be quadratic in a network of thousands."""
    planned, plans = bnfold.planner.apply.plan, []

    def counted(*arguments, **options):
        plans.append(planned(*arguments, **options))
        return plans[-1]

    monkeypatch.setattr(bnfold.planner.apply, "plan", counted)
    held, nodes = {"s": np.full(4, 0.02, "f4")}, []
    for index in range(6):
        held |= batch_norm(f"bn{index}", 4, index) | {f"q{index}": np.full((4, 4, 1, 1), -128, "i1")}
        held[f"bn{index}_scale"] = np.full(4, -1.0, "f4")  # -128 has no opposite in int8
        source = f"z{index - 1}" if index else "x"
        nodes += [
            node("DequantizeLinear", [f"q{index}", "s"], [f"w{index}"], axis=0),
            node("Conv", [source, f"w{index}"], [f"c{index}"]),
            bn_node(f"c{index}", f"b{index}", f"bn{index}"),
            node("Sigmoid", [f"b{index}"], [f"z{index}"]),
        ]
    model = make(nodes, [tensor("x", [1, 4, 3, 3])], [tensor("z5", [1, 4, 3, 3])], held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"] * 6
    assert len(plans) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZeroDivisionError(), "overflow"),
        (ValueError(), "unknown-shape"),
        (IndexError(), "unknown-shape"),
        (NotEvaluable("why"), "dynamic-weights"),
        (NotRepresentable(Refusal("padding", "why")), "padding"),
    ],
)
def test_the_reason_of_an_error_while_rewriting(error, code):
    assert bnfold.planner.apply._cause(SimpleNamespace(op="Conv", name="c", label="Conv 'c'"), error).reason == code


def test_an_overflow_keeps_only_the_responsible_batch_norm():
    """Another BatchNorm, which folds into more layers, is not responsible."""
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
    assert reasons(plan) == ["folds", "overflow"]
