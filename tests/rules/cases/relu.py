"""Cases of Relu and LeakyRelu, and of the maximum that a BatchNorm in front of a Relu may become."""

from __future__ import annotations

import numpy as np

from tests.builders import (
    ANY,
    IMAGE,
    batch_norm,
    between,
    bn_node,
    make,
    node,
    parse,
    positive,
    weights,
    without_offset,
)
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(0, ("nonlinear",))
def relu_between():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        r = Relu (t)
        y = BatchNormalization (r, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(nodes=2)
def behind_a_relu_without_offset():
    return between(node("Relu", ["t"], ["t2"]), bn=without_offset("bn", 4))


@case(nodes=2)
def behind_a_leaky_relu_without_offset():
    return between(node("LeakyRelu", ["t"], ["t2"], alpha=0.2), bn=without_offset("bn", 4))


@case(nodes=3)
def relu_batch_norm_conv():
    conv = node("Conv", ["b", "w2"], ["y"], name="conv2")
    nodes = [node("Conv", ["x", "w"], ["t"], name="conv"), node("Relu", ["t"], ["r"]), bn_node("r", "b", "bn"), conv]
    held = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 5, 4, 3, 3), **batch_norm("bn", 4)}
    return make(nodes, [IMAGE], [ANY], held)


def _before_relu_and_conv(bn, **conv):
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Relu", ["b"], ["r"]),
        node("Conv", ["r", "w"], ["y"], name="conv", **conv),
    ]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **bn})


@case(nodes=3, threshold=True)
def threshold_before_an_unpadded_conv():
    return _before_relu_and_conv(positive("bn", 3))


@case(0, ("nonlinear",))
def no_threshold_unless_requested():
    return _before_relu_and_conv(positive("bn", 3))


@case(0, ("nonlinear",), threshold=True)
def no_threshold_with_a_negative_scale():
    return _before_relu_and_conv(batch_norm("bn", 3, 5))


@case(0, ("nonlinear",), threshold=True)
def no_threshold_before_a_padded_conv():
    return _before_relu_and_conv(positive("bn", 3), pads=[1, 1, 1, 1])


@case(2, nodes=3, threshold=True)
def threshold_under_a_scale():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        s = Sigmoid (x)
        b = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        r = Relu (b)
        m = Mul (r, k)
        y = Conv (m, w)
    }"""
    held = {"w": weights(1, 4, 3, 3, 3), "k": np.abs(weights(2, 3, 1, 1)), **positive("bn", 3)}
    return parse(graph, held)


# --- its rows in the operator-context matrix

row("Relu", one("Relu"))
for alpha in (0.0, 0.1, 1.0, -0.5):
    row(f"LeakyRelu {alpha}", one("LeakyRelu", alpha=alpha))
