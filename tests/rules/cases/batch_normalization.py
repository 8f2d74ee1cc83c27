"""Cases of BatchNormalization itself: its parameters, opsets and modes, and one after another."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.builders import (
    ANY,
    IMAGE,
    after_conv,
    batch_norm,
    behind_conv,
    bn_node,
    make,
    node,
    tensor,
    weights,
)
from tests.matrix.row import Row, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(0, ("dynamic-statistics",))
def statistics_computed_at_run_time():
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), bn_node("t", "y", "bn")]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    del held["bn_mean"]
    return make(nodes, [IMAGE, tensor("bn_mean", [4])], [ANY], held)


@case(0, ("degenerate-variance",))
def negative_variance():
    bn = batch_norm("bn", 4)
    bn["bn_var"][0] = -1
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(0, ("overflow",))
def statistics_not_finite():
    bn = batch_norm("bn", 4)
    bn["bn_mean"][0] = np.nan
    return behind_conv(["N", 3, 8, 8], weights(1, 4, 3, 3, 3), 4, bn=bn)


@case(nodes=1)
def opset_7():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=7, ir_version=3, attributes={"spatial": 1})


@case(nodes=1)
def opset_14_explicit_inference():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=14, attributes={"training_mode": 0})


@case(nodes=1)
def epsilon_far_from_the_default():
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, attributes={"epsilon": 0.1})


@case(0, ("training-mode",))
def opset_15_training():
    model = behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=15, attributes={"training_mode": 1})
    model.graph.node[1].output.extend(["new_mean", "new_var"])
    return model


@case(0, ("per-activation",))
def opset_7_per_activation():
    rng = np.random.default_rng(1)
    bn = {f"bn_{part}": rng.uniform(0.5, 2, (4, 6, 6)).astype("float32") for part in ("scale", "bias", "mean", "var")}
    return behind_conv([1, 3, 8, 8], weights(1, 4, 3, 3, 3), 4, opset=7, bn=bn, attributes={"spatial": 0})


@case(2, nodes=1)
def batch_norm_behind_batch_norm():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "u", "bn1"),
        bn_node("u", "y", "bn2"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return make(nodes, [IMAGE], [ANY], held)


@case(1, ("graph-input",), nodes=1)
def batch_norm_into_one_that_is_kept():
    nodes = [bn_node("x", "u", "bn1"), bn_node("u", "y", "bn2")]
    return make(nodes, [IMAGE], [ANY], {**batch_norm("bn1", 3, 1), **batch_norm("bn2", 3, 2)})


@case(2, nodes=2)
def two_outputs_of_the_same_batch_norm():
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
        bn_node("t", "z", "bn", name="again"),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY, helper.make_tensor_value_info("z", 1, None)], held)


@case(2, nodes=1)
def caffe_scale_behind_batch_norm_folds_with_it():
    held = {"m": weights(3, 4, 1, 1), **batch_norm("bn", 4)}
    return after_conv([bn_node("t", "u", "bn"), node("Mul", ["u", "m"], ["y"], name="scale")], held)


# --- its rows in the operator-context matrix

row("BatchNormalization", bn_node("c", "d", "bn"), **batch_norm("bn", 8))
row("BatchNormalization per activation", bn_node("c", "d", "bn", spatial=0), opset=8,
    **{key: np.broadcast_to(row[:, None, None], (8, 4, 6)) for key, row in batch_norm("bn", 8).items()})  # fmt: skip
