"""Cases of InstanceNormalization and GroupNormalization."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, IMAGE, batch_norm, bn_node, make, node, parse, positive, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=1)
def behind_an_instance_normalization():
    held = {"s": weights(1, 3), "c": weights(2, 3), **batch_norm("bn", 3)}
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = InstanceNormalization (x, s, c)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


@case(0, ("nonlinear",))
def before_an_instance_normalization():
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    held = {"w": weights(1, 4, 3, 3, 3), "s": weights(1, 4), "c": weights(2, 4)}
    nodes = [
        conv,
        node("Abs", ["t"], ["a"]),
        bn_node("a", "b", "bn"),
        node("InstanceNormalization", ["b", "s", "c"], ["y"]),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **batch_norm("bn", 4)})


@case(nodes=3)
def before_an_instance_normalization_that_loses_the_offset():
    """The scale goes through the Relu to the Conv, and the mean of each channel takes its offset along."""
    held = {"w": weights(1, 4, 3, 3, 3), "s": weights(1, 4), "c": weights(2, 4)}
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Relu", ["t"], ["a"]),
        bn_node("a", "b", "bn"),
        node("InstanceNormalization", ["b", "s", "c"], ["y"]),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **positive("bn", 4)})


@case(0, ("nonlinear",))
def before_an_instance_normalization_that_computes_its_bias_from_it():
    """The offset would be lost in the mean, not in the bias."""
    held = {"w": weights(1, 4, 3, 3, 3), "s": weights(1, 4)}
    nodes = [
        node("Conv", ["x", "w"], ["t"], name="conv"),
        node("Relu", ["t"], ["a"]),
        bn_node("a", "b", "bn"),
        node("ReduceMean", ["b"], ["c"], axes=[0, 2, 3], keepdims=0),
        node("InstanceNormalization", ["b", "s", "c"], ["y"]),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **positive("bn", 4)})


GROUPS = """(float[N, 6, 4, 4] x) => (float[] y) {
    t = GroupNormalization <num_groups = 2> (x, s, c)
    y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
}"""


@case(nodes=1)
def behind_a_group_normalization():
    return parse(GROUPS, {"s": weights(1, 6), "c": weights(2, 6), **batch_norm("bn", 6)}, opset=21)


@case(nodes=2)
def behind_a_group_normalization_whose_positions_became_channels():
    """Onnx's inference does not know the rank of what a GroupNormalization makes."""
    graph = GROUPS.replace("y =", "u = Transpose <perm = [0, 2, 3, 1]> (t)\n    y =").replace("ation (t,", "ation (u,")
    bn = {name: np.full(4, data[0]) for name, data in batch_norm("bn", 4).items()}
    return parse(graph, {"s": weights(1, 6), "c": weights(2, 6), **bn}, opset=21)


@case(0, ("nonlinear",))
def before_a_group_normalization():
    graph = """(float[N, 6, 4, 4] x) => (float[] y) {
        p = Conv (x, w)
        a = Relu (p)
        t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        y = GroupNormalization <num_groups = 2> (t, s, c)
    }"""
    held = {"w": weights(3, 6, 6, 1, 1), "s": weights(1, 6), "c": weights(2, 6), **positive("bn", 6)}
    return parse(graph, held, opset=21)


# --- its rows in the operator-context matrix

row("InstanceNormalization", one("InstanceNormalization", "k", "l"), k=some(8), l=some(8))
