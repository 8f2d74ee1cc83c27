"""Folded weights that cannot be stored: overflow, lost bits, and which fold is given up for it."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

import bnfold.planner.apply
from bnfold.ir.constant_folding import NotEvaluable
from bnfold.rules.reasons import Refusal
from bnfold.rules.rule import NotRepresentable
from tests.builders import batch_norm, bn, bn_node, make, node, parse, tensor, weights
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


@pytest.mark.parametrize("lowest", [2.0**-14, 2.0**-15])
def test_the_smallest_normal_number_is_stored_in_full_precision(lowest):
    """A channel whose largest weight lies below it loses bits."""
    held = {**batch_norm("bn", 4, 1, "float16"), "w": np.full((4, 3, 1, 1), 2.0**-10, "f2")}
    held["bn_scale"], held["bn_var"] = np.full(4, lowest * 2.0**10, "f2"), np.ones(4, "f2")
    graph = """(float16[1, 3, 4, 4] x) => (float16[1, 4, 4, 4] y) {
        c = Conv (x, w)
        b = BatchNormalization <epsilon = 0.0> (c, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if lowest == 2.0**-14 else "overflow"]


@pytest.mark.parametrize(("dtype", "weight", "scale"), [("float16", 1e-3, 1e-5), ("float32", 1e-20, 1e-30)])
def test_weights_that_underflow_are_not_dead_channels(dtype, weight, scale):
    held = {"w": np.full((4, 4, 1, 1), weight, dtype), "s": np.full(4, scale, dtype)}
    held |= {"b": np.zeros(4, dtype), "m": np.zeros(4, dtype), "v": np.ones(4, dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [tensor("x", [2, 4, 6, 6], kind)], outputs, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"]
