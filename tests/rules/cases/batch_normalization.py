"""Cases of BatchNormalization itself: its parameters, opsets and modes, and one after another."""

from __future__ import annotations

import numpy as np

from tests.builders import after_conv, batch_norm, behind_conv, bn_node, node, parse, weights
from tests.matrix.row import Row, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(0, ("dynamic-statistics",))
def statistics_computed_at_run_time():
    graph = """(float[N, 3, 8, 8] x, float[4] bn_mean) => (float[] y) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    del held["bn_mean"]
    return parse(graph, held)


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
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = BatchNormalization (t, bn1_scale, bn1_bias, bn1_mean, bn1_var)
        y = BatchNormalization (u, bn2_scale, bn2_bias, bn2_mean, bn2_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn1", 4, 1), **batch_norm("bn2", 4, 2)}
    return parse(graph, held)


@case(1, ("graph-input",), nodes=1)
def batch_norm_into_one_that_is_kept():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        u = BatchNormalization (x, bn1_scale, bn1_bias, bn1_mean, bn1_var)
        y = BatchNormalization (u, bn2_scale, bn2_bias, bn2_mean, bn2_var)
    }"""
    return parse(graph, {**batch_norm("bn1", 3, 1), **batch_norm("bn2", 3, 2)})


@case(2, nodes=2)
def two_outputs_of_the_same_batch_norm():
    graph = """(float[N, 3, 8, 8] x) => (float[] y, float[] z) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        z = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(2, nodes=1)
def caffe_scale_behind_batch_norm_folds_with_it():
    held = {"m": weights(3, 4, 1, 1), **batch_norm("bn", 4)}
    return after_conv([bn_node("t", "u", "bn"), node("Mul", ["u", "m"], ["y"], name="scale")], held)


# --- its rows in the operator-context matrix

row("BatchNormalization", bn_node("c", "d", "bn"), **batch_norm("bn", 8))
row("BatchNormalization per activation", bn_node("c", "d", "bn", spatial=0), opset=8,
    **{key: np.broadcast_to(row[:, None, None], (8, 4, 6)) for key, row in batch_norm("bn", 8).items()})  # fmt: skip
