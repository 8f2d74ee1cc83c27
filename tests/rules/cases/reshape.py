"""Cases of Reshape, Flatten, Squeeze, Unsqueeze and Expand."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, between, node, parse, weights
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def squeezed():
    graph = """(float[N, 3, 1, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Squeeze (t, axes)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 1, 3), "axes": np.array([2]), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=2)
def unsqueezed():
    graph = """(float[N, 3] x) => (float[] y) {
        t = Gemm (x, w)
        u = Unsqueeze (t, axes)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 3, 4), "axes": np.array([2, 3]), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(nodes=2)
def flattened_positions():
    held = {"shape": np.array([0, 4, -1])}
    return between(node("Reshape", ["t", "shape"], ["t2"]), held=held)


@case(0, ("per-activation",))
def flattened_into_features():
    bn = batch_norm("bn", 4 * 36)
    return between(node("Flatten", ["t"], ["t2"]), bn=bn)


@case(nodes=2)
def per_feature_behind_gemm_and_reshape():
    graph = """(float[N, 3] x) => (float[] y) {
        t = Gemm (x, w)
        u = Reshape (t, shape)
        y = Mul (u, m)
    }"""
    held = {"w": weights(1, 3, 8), "shape": np.array([-1, 2, 4]), "m": weights(2, 2, 4)}
    return parse(graph, held)


@case(nodes=4)
def channel_shuffle():
    held = {"apart": np.array([0, 2, 2, 6, 6]), "together": np.array([0, 4, 6, 6])}
    return between(
        node("Reshape", ["t", "apart"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["b", "together"], ["t2"]),
        held=held,
    )


@case(nodes=8)
def channel_shuffle_by_computed_shapes():
    """As torch's TorchScript exporter writes it: the batch from Shape and Gather, a dimension left to inference."""
    held = {"first": np.array([0]), "rest": np.array([2, -1, 6, 6]), "back": np.array([4, 6, 6])}
    return between(
        node("Shape", ["t"], ["s"]),
        node("Gather", ["s", "first"], ["n"], axis=0),
        node("Concat", ["n", "rest"], ["apart"], axis=0),
        node("Concat", ["n", "back"], ["together"], axis=0),
        node("Reshape", ["t", "apart"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["b", "together"], ["t2"]),
        held=held,
    )


@case(nodes=2)
def expanded():
    graph = """(float[1, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        u = Expand (t, shape)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 4, 3, 8, 8), "shape": np.array([1, 4, 5, 5]), **batch_norm("bn", 4)}
    return parse(graph, held)


# --- its rows in the operator-context matrix

for target in (
    [2, 8, 24], [2, 32, 6], [16, 4, 6], [2, 192], [2, 2, 4, 4, 6], [2, 8, 2, 2, 6], [384], [2, 8, 1, 4, 6],
    [2, 6, 4, 8], [0, 0, -1], [-1, 6], [2, 1, 8, 4, 6, 1], [8, 2, 4, 6], [1, 2, 8, 24],
):  # fmt: skip
    row(f"Reshape {target}", one("Reshape", "k"), k=target)
for target in ([0, 0, -1], [-1, 24], [-1, 6], [0, 2, 4, 4, 6], [-1, 8, 4, 6], [1, -1, 4, 6]):
    row(f"Reshape {target} of unknown batch", one("Reshape", "k"), shape=("N", 8, 4, 6), k=target)
for target in ([0, 0, -1], [-1, 48], [0, -1, 6], [0, 8, -1]):
    row(f"Reshape {target} of unknown height", one("Reshape", "k"), shape=(2, 8, "H", 6), k=target)
    row(f"Reshape {target} of much unknown", one("Reshape", "k"), shape=("N", 8, "H", 6), k=target)
nine = tuple(f"d{axis}" for axis in range(9))
row("Reshape of nine unknown to three", one("Reshape", "k"), shape=("N", 8, *nine), k=[0, 8, -1])
for axis in range(-4, 5):
    row(f"Flatten {axis}", one("Flatten", axis=axis))
row("Flatten of unknown batch", one("Flatten"), shape=("N", 8, 4, 6))
row("Squeeze", one("Squeeze", "k"), shape=(2, 8, 1, 6), k=[2])
row("Squeeze by attribute", one("Squeeze", axes=[2]), shape=(2, 8, 1, 6), opset=12)
row("Squeeze all", one("Squeeze"), shape=(1, 8, 1, 6))
row("Unsqueeze", one("Unsqueeze", "k"), k=[1])
row("Unsqueeze several", one("Unsqueeze", "k"), k=[-1, 0])
for target in ([2, 8, 4, 6], [3, 2, 8, 4, 6], [1, 1, 1, 1, 1, 6]):
    row(f"Expand {target}", one("Expand", "k"), k=target)
row("Expand of one row", one("Expand", "k"), shape=(2, 8, 1, 6), k=[2, 8, 4, 6])
row("Expand of one channel", one("Expand", "k"), shape=(2, 1, 4, 6), k=[2, 8, 4, 6])
row("Expand of vectors", one("Expand", "k"), shape=(8, 1), k=[2, 8, 6])
row("Expand of one row, many times", one("Expand", "k"), shape=(1, 8, 4, 6), k=[3, 2, 8, 4, 6])
