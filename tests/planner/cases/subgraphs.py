"""Cases of If, Loop and model-local functions."""

from __future__ import annotations

import numpy as np

from tests.builders import SAMPLES, batch_norm, parse, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(2)
def if_branches():
    return SAMPLES["if_branches"]()


@case(1, nodes=1)
def function_call():
    return SAMPLES["function"]()


@case(1)
def loop_body_with_weights_outside():
    graph = """(float[1, 3, 8, 8] x) => (float[] y) {
        y = Loop (trips, "", x) <body = body (int64 i, bool go, float[1, 3, 8, 8] state) => (
            bool go_on, float[1, 3, 8, 8] next
        ) {
            t = Conv <pads = [1, 1, 1, 1]> (state, w)
            next = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
            go_on = Identity (go)
        }>
    }"""
    return parse(graph, {"w": weights(1, 3, 3, 3, 3), "trips": np.array(2), **batch_norm("bn", 3)})


@case(0, ("control-flow",))
def conv_output_used_by_a_subgraph():
    graph = """(float[N, 3, 8, 8] x, bool flag) => (float[] y, float[] z) {
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        z = If (flag) <
            else_branch = else () => (float[] else_z) { else_z = Neg (t) },
            then_branch = then () => (float[] then_z) { then_z = Abs (t) }
        >
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(1, nodes=2)
def batch_norm_output_used_by_a_subgraph():
    graph = """(float[N, 3, 8, 8] x, bool flag) => (float[] y) {
        t = Conv (x, w)
        b = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        y = If (flag) <
            else_branch = else () => (float[] else_y) { else_y = Neg (b) },
            then_branch = then () => (float[] then_y) { then_y = Abs (b) }
        >
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})
