"""Cases of LSTM, GRU and RNN."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, batch_norm, bn_node, make, node, parse, tensor, weights
from tests.matrix.row import Row, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def recurrent(op, gates, with_bias):
    held = {"w": weights(1, 2, gates * 5, 4), "r": weights(2, 2, gates * 5, 5), "perm": np.array([2, 0, 1])}
    inputs = ["s", "w", "r"]
    if with_bias:
        held["c"] = weights(3, 2, 2 * gates * 5)
        inputs.append("c")
    nodes = [
        bn_node("x", "b", "bn"),
        node("Transpose", ["b"], ["s"], perm=[2, 0, 1]),
        node(op, inputs, ["y"], name="rnn", hidden_size=5, direction="bidirectional"),
    ]
    del held["perm"]
    return make(nodes, [tensor("x", [2, 4, 3])], [ANY], {**held, **batch_norm("bn", 4)})


@case(nodes=2)
def before_an_lstm():
    return recurrent("LSTM", 4, True)


@case(nodes=2)
def before_a_gru_without_bias():
    return recurrent("GRU", 3, False)


@case(nodes=2)
def before_an_rnn():
    return recurrent("RNN", 1, True)


@case(0, ("nonlinear",))
def behind_an_lstm():
    held = {"w": weights(1, 1, 20, 4), "r": weights(2, 1, 20, 5), **batch_norm("bn", 1)}
    graph = """(float[3, 2, 4] x) => (float[] y) {
        h = LSTM <hidden_size = 5> (x, w, r)
        y = BatchNormalization (h, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


# --- its rows in the operator-context matrix

for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    row(
        op,
        node(op, ["c", "w", "r"], ["y", "d"], hidden_size=5),
        shape=(3, 2, 6),
        w=some(1, gates * 5, 6),
        r=some(1, gates * 5, 5),
    )
    row(f"{op} with B", node(op, ["c", "w", "r", "b"], ["y", "d"], hidden_size=5), shape=(3, 2, 6),
        w=some(1, gates * 5, 6), r=some(1, gates * 5, 5), b=some(1, gates * 10))  # fmt: skip
