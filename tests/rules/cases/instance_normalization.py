"""Cases of InstanceNormalization."""

from __future__ import annotations

from tests.builders import ANY, IMAGE, batch_norm, bn_node, make, node, parse, weights
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


# --- its rows in the operator-context matrix

row("InstanceNormalization", one("InstanceNormalization", "k", "l"), k=some(8), l=some(8))
