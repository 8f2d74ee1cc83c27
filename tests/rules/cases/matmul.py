"""Cases of MatMul, with and without an Add behind it."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.builders import ahead, batch_norm, node, of_opset, parse, tensor, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def matmul_becomes_matmul_and_add():
    graph = """(float[3, 6] x) => (float[] y) {
        t = MatMul (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(nodes=2)
def matmul_add():
    graph = """(float[3, 6] x) => (float[] y) {
        t = MatMul (x, w)
        a = Add (c, t)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 6, 5), "c": weights(2, 5), **batch_norm("bn", 5)}
    return parse(graph, held)


@case(0, ("graph-input",))
def matmul_rank_3_normalises_the_rows():
    graph = """(float[2, 5, 6] x) => (float[] y) {
        t = MatMul (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(0, ("graph-input",))
def matmul_of_two_computed_values():
    graph = """(float[3, 6] x, float[6, 5] z) => (float[] y) {
        t = MatMul (x, z)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, batch_norm("bn", 5))


@case(nodes=2)
def before_matmul_and_add():
    nodes = [node("MatMul", ["b", "w"], ["m"], name="dense"), node("Add", ["m", "c"], ["y"], name="bias")]
    return ahead(*nodes, held={"w": weights(1, 6, 5), "c": weights(2, 5)}, channels=6, x=tensor("x", ["N", 6]))


@case(nodes=2)
def before_matmul_alone_becomes_an_add():
    return ahead(
        node("MatMul", ["b", "w"], ["y"], name="dense"),
        held={"w": weights(1, 6, 5)},
        channels=6,
        x=tensor("x", ["N", 6]),
    )


@case(nodes=4)
def matmul_of_rank_3_between_transposes():
    graph = """(float[N, 7, 6] x) => (float[] y) {
        m = MatMul (x, w)
        t = Transpose <perm = [0, 2, 1]> (m)
        b = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        y = Transpose <perm = [0, 2, 1]> (b)
    }"""
    return parse(graph, {"w": weights(1, 6, 5), **batch_norm("bn", 5)})


@case(0, ("graph-input",))
def matmul_reshape_batch_norm_on_another_axis():
    """onnxruntime folds this, wrongly: N and the number of channels merely agree."""
    graph = """(float[2, 4, 6] x) => (float[] y) {
        t = MatMul (x, w)
        u = Reshape (t, shape)
        y = BatchNormalization (u, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 6, 4), "shape": np.array([2, 4, 4]), **batch_norm("bn", 4)}
    return parse(graph, held)


def _mixed(operands: str, *held: int, size: str = "N, 6, 5, 7", bias: tuple[int, ...] = (4, 1, 1)) -> ModelProto:
    """Return Conv, a product of its result ``t`` and ``k``, Add, BatchNormalization."""
    graph = f"""(float[{size}] x) => (float[] y) {{
        t = Conv (x, w)
        m = MatMul ({operands})
        a = Add (m, c)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    parts = {"w": weights(1, 4, 6, 1, 1), "k": weights(2, *held), "c": weights(3, *bias), **batch_norm("bn", 4)}
    return parse(graph, parts)


@case(nodes=3)
def positions_mixed_behind_a_conv():
    """The channels are not the product's: their scale goes on to the Conv, as in networks of graphs and of tokens."""
    return _mixed("t, k", 7, 3)


@case(nodes=3)
def positions_mixed_by_a_matrix_on_the_left():
    return _mixed("k, t", 3, 5)


@case(nodes=3)
def positions_mixed_by_a_matrix_for_each_channel():
    return _mixed("k, t", 4, 3, 5)


@case(nodes=3)
def positions_mixed_by_a_matrix_for_each_channel_of_an_old_opset():
    return of_opset(_mixed("t, k", 4, 7, 2), 8)


@case(nodes=3)
def behind_a_product_with_a_vector():
    return _mixed("t, k", 7, bias=(4, 1))


@case(nodes=3)
def behind_a_product_that_repeats_the_data():
    return _mixed("k, t", 2, 1, 3, 5, size="1, 6, 5, 7")


@case(nodes=4)
def before_a_product_of_positions():
    """The offset goes on as one number per channel and column, which the Add behind takes."""
    graph = """(float[N, 4, 5, 7] x) => (float[] y) {
        z = Elu (x)
        b = BatchNormalization (z, bn_scale, bn_bias, bn_mean, bn_var)
        m = MatMul (b, k)
        a = Add (m, c)
        y = Conv (a, w)
    }"""
    held = {"w": weights(1, 6, 4, 1, 1), "k": weights(2, 7, 3), "c": weights(3, 4, 5, 3), **batch_norm("bn", 4)}
    return parse(graph, held)


@case(0, ("unknown-shape",))
def behind_matrices_of_a_batch_of_unknown_size():
    """A batch of one would be repeated for the two matrices."""
    return _mixed("k, t", 2, 1, 3, 5)


# --- its rows in the operator-context matrix

for name, shape, inner in (
    ("right", (6, 5), (2, 8, 4, 6)),
    ("blocks", (1, 1, 6, 5), (2, 8, 4, 6)),
    ("rows", (6, 5), (4, 6)),
):
    row(f"MatMul {name}", one("MatMul", "k"), shape=inner, k=some(*shape))
row("MatMul left", node("MatMul", ["k", "c"], ["d"]), k=some(5, 4))
row("MatMul left, blocks", node("MatMul", ["k", "c"], ["d"]), k=some(1, 5, 4))
row(
    "MatMul left and a bias",
    node("MatMul", ["k", "c"], ["m"]),
    node("Add", ["m", "l"], ["d"]),
    k=some(5, 4),
    l=some(5, 1),
)
row("MatMul of many matrices", one("MatMul", "k"), k=some(8, 6, 5))
row("MatMul by a vector", one("MatMul", "k"), k=some(6))
row("MatMul of a vector", one("MatMul", "k"), shape=(6,), k=some(6, 5))
row("MatMul of more axes", one("MatMul", "k"), shape=(4, 6), k=some(1, 6, 5))
row("MatMul of itself", node("Transpose", ["c"], ["t"], perm=[0, 1, 3, 2]), one("MatMul", "t"))
row("MatMul and a bias", node("MatMul", ["c", "k"], ["m"]), node("Add", ["m", "l"], ["d"]), k=some(6, 5), l=some(5))
