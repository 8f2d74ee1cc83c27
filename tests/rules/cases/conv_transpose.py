"""Cases of ConvTranspose."""

from __future__ import annotations

from tests.builders import ANY, IMAGE, ahead, batch_norm, bn_node, make, node, parse, tensor, weights, without_offset
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=1)
def conv_transpose_grouped():
    conv = node(
        "ConvTranspose",
        ["x", "w", "c"],
        ["t"],
        name="up",
        group=2,
        strides=[2, 2],
        output_padding=[1, 1],
        pads=[1, 1, 1, 1],
    )
    held = {"w": weights(1, 4, 3, 3, 3), "c": weights(2, 6), **batch_norm("bn", 6)}
    return make([conv, bn_node("t", "y", "bn")], [tensor("x", ["N", 4, 5, 5])], [ANY], held)


@case(nodes=1)
def conv_transpose_1d_without_bias():
    held = {"w": weights(1, 4, 3, 3), **batch_norm("bn", 3)}
    graph = """(float[N, 4, 5] x) => (float[] y) {
        t = ConvTranspose (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


@case(nodes=2)
def the_normalization_of_an_input_before_a_conv_transpose():
    """The offset stays as one Add."""
    return ahead(node("ConvTranspose", ["b", "w"], ["y"], name="up"), held={"w": weights(1, 3, 4, 2, 2)})


@case(0, ("padding",))
def before_a_conv_transpose():
    nodes = [node("Sigmoid", ["x"], ["s"]), bn_node("s", "b", "bn"), node("ConvTranspose", ["b", "w"], ["y"])]
    return make(nodes, [IMAGE], [ANY], {"w": weights(1, 3, 4, 2, 2), **batch_norm("bn", 3)})


@case(nodes=1)
def before_a_conv_transpose_without_offset():
    up = node("ConvTranspose", ["b", "w"], ["y"], name="up", group=3)
    return ahead(up, held={"w": weights(1, 3, 2, 2, 2)}, bn=without_offset("bn", 3))


# --- its rows in the operator-context matrix

for rank in (1, 2, 3):
    size = (2, 4, *(5, 6, 7)[:rank])
    row(f"ConvTranspose of {rank}", one("ConvTranspose", "k", "l"), shape=size, k=some(4, 6, *[2] * rank), l=some(6))
    row(f"ConvTranspose of {rank}, groups", one("ConvTranspose", "k", group=2), shape=size, k=some(4, 3, *[2] * rank))
