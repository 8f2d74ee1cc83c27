"""Cases of Gemm."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, ahead, batch_norm, bn_node, make, node, parse, tensor, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def behind_gemm(c, **attributes):
    shape = (5, 6) if attributes.get("transB") else (6, 5)
    inputs = ["x", "w"] + (["c"] if c is not None else [])
    nodes = [node("Gemm", inputs, ["t"], name="dense", **attributes), bn_node("t", "y", "bn")]
    held = {"w": weights(1, *shape), **batch_norm("bn", 5)}
    if c is not None:
        held["c"] = c
    return make(nodes, [tensor("x", [6, 3] if attributes.get("transA") else [3, 6])], [ANY], held)


@case(nodes=1)
def gemm_alpha_beta_trans_b():
    return behind_gemm(weights(2, 5), alpha=0.5, beta=3.0, transB=1)


@case(nodes=1)
def gemm_trans_a():
    return behind_gemm(weights(2, 1, 5), transA=1, beta=0.5)


@case(nodes=1)
def gemm_column_of_biases_grows_to_a_matrix():
    return behind_gemm(weights(2, 3, 1), alpha=2.0)


@case(nodes=1)
def gemm_scalar_bias():
    return behind_gemm(np.float32(0.5), beta=-1.0)


@case(nodes=1)
def gemm_without_bias():
    return behind_gemm(None, alpha=0.25, beta=7.0)


@case(nodes=1)
def gemm_full_bias():
    return behind_gemm(weights(2, 3, 5), beta=2.0)


@case(nodes=1)
def before_a_gemm():
    held = {"w": weights(1, 5, 6), "c": weights(2, 5)}
    gemm = node("Gemm", ["b", "w", "c"], ["y"], name="dense", transB=1, alpha=0.5, beta=2.0)
    return ahead(gemm, held=held, channels=6, x=tensor("x", ["N", 6]))


@case(0, ("channel-axis",))
def before_a_gemm_that_transposes():
    gemm = node("Gemm", ["b", "w"], ["y"], name="dense", transA=1)
    return ahead(gemm, held={"w": weights(1, 3, 5)}, channels=6, x=tensor("x", [3, 6]))


@case(nodes=1)
def gemm_mul_add():
    graph = """(float[N, 6] x) => (float[] y) {
        g = Gemm (x, w, c)
        p = Mul (g, m)
        y = Add (p, k)
    }"""
    held = {"w": weights(1, 6, 5), "c": weights(2, 5), "m": weights(3, 5), "k": weights(4, 1, 5)}
    return parse(graph, held)


@case(nodes=3)
def dropout_flatten_gemm():
    held = {"w": weights(1, 3 * 64, 5), "c": weights(2, 5)}
    return ahead(
        node("Dropout", ["b"], ["d"]),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "w", "c"], ["y"], name="dense"),
        held=held,
    )


# --- its rows in the operator-context matrix

for name, attributes, c in (
    ("", {}, None), ("with C", {}, (5,)), ("scaled", {"alpha": 0.5, "beta": 2.0}, (5,)),
    ("rows", {"beta": 0.5}, (4, 1)),
    ("row", {}, (1, 5)), ("full", {}, (4, 5)), ("single", {}, (1,)), ("scalar", {}, ()),
    ("without C's part", {"beta": 0.0}, (5,)),
    ("transB", {"transB": 1}, (5,)), ("transA", {"transA": 1}, (5,)),
):  # fmt: skip
    held = {} if c is None else {"l": some(*c)}
    matrix = some(5, 6) if "transB" in attributes else some(6, 5)
    row(
        f"Gemm {name}",
        one("Gemm", "k", *held, **attributes),
        shape=(6, 4) if name == "transA" else (4, 6),
        k=matrix,
        **held,
    )
