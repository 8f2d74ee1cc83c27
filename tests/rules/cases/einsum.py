"""Cases of Einsum."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, node, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _behind(equation: str, shape: str, operands: str = "x, w", held: tuple[int, ...] = (6, 4)) -> ModelProto:
    graph = f"""(float[{shape}] x) => (float[] y) {{
        t = Einsum <equation = "{equation}"> ({operands})
        a = Add (t, c)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    shapes = {3: (4, 1), 4: (4, 1, 1), 2: (4,)}
    rank = shape.count(",") + 1
    return parse(graph, {"w": weights(1, *held), "c": weights(2, *shapes[rank]), **batch_norm("bn", 4)})


@case(nodes=2)
def of_rows():
    return _behind("bi,io->bo", "N, 6")


@case(nodes=2)
def of_rows_by_a_transposed_matrix():
    return _behind("bi,oi->bo", "N, 6", held=(4, 6))


@case(nodes=2)
def of_the_second_of_three_axes():
    return _behind("bit, io -> bot", "N, 6, 5")


@case(nodes=2)
def of_the_second_of_four_axes_the_matrix_first():
    return _behind("oi,bihw->bohw", "N, 6, 5, 3", "w, x", held=(4, 6))


@case(nodes=3)
def behind_a_batch_norm():
    graph = """(float[N, 6, 5] x) => (float[] y) {
        a = Abs (x)
        t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        u = Einsum <equation = "bit,io->bot"> (t, w)
        y = Add (u, c)
    }"""
    return parse(graph, {"w": weights(1, 6, 4), "c": weights(2, 4, 1), **batch_norm("bn", 6)})


@case(nodes=3)
def that_moves_the_axis():
    """The new axis comes last, and is put back."""
    graph = """(float[N, 6, 5] x) => (float[] y) {
        t = Einsum <equation = "bit,io->bto"> (x, w)
        u = Transpose <perm = [0, 2, 1]> (t)
        a = Add (u, c)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 6, 4), "c": weights(2, 4, 1), **batch_norm("bn", 4)})


@case(nodes=2)
def that_scales_each_channel_and_position():
    return _behind("bit,it->bit", "N, 4, 5", held=(4, 5))


@case(nodes=2)
def of_two_axes_without_an_arrow():
    """What has a letter once is left, in the order of the letters."""
    graph = """(float[N, 3, 10] x) => (float[] y) {
        t = Einsum <equation = "bhd,hdo"> (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 3, 10, 4), **batch_norm("bn", 4)})


@case(nodes=4)
def of_a_graph_as_spatial_temporal_networks_have_it():
    """The channels are not the product's: their scale goes on to the Conv in front, the offset to the Add."""
    graph = """(float[2, 6, 3, 7] x) => (float[] y) {
        t = Conv (x, w)
        r = Reshape (t, s)
        e = Einsum <equation = "nkctv,kvw->nctw"> (r, graph)
        a = Add (e, c)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"w": weights(1, 12, 6, 1, 1), "s": np.array([2, 3, 4, 3, 7]), "graph": weights(2, 3, 7, 7)}
    return parse(graph, {**held, "c": weights(3, 4, 1, 1), **batch_norm("bn", 4)})


@case(nodes=4)
def of_a_graph_behind_a_batch_norm():
    """The offset is carried along both: a number per channel and joint, the bias's of what is behind."""
    graph = """(float[N, 4, 3, 7] x) => (float[] y) {
        z = Elu (x)
        b = BatchNormalization (z, bn_scale, bn_bias, bn_mean, bn_var)
        e = Einsum <equation = "nctv,vw->nctw"> (b, graph)
        a = Add (e, c)
        y = Conv (a, w)
    }"""
    held = {"w": weights(1, 12, 4, 1, 1), "graph": weights(2, 7, 7), "c": weights(3, 4, 1, 7)}
    return parse(graph, {**held, **batch_norm("bn", 4)})


@case(0, ("unknown-shape",))
def of_an_axis_of_unknown_size():
    """It may be one entry, which is repeated."""
    return _behind("bit,it->bit", "2, 4, T", held=(4, 5))


@case(0, ("channel-axis",))
def of_an_axis_that_is_summed():
    """Each channel adds up others, with scales of their own: no scale behind is one in front, nor of the constant."""
    graph = """(float[N, 4, 5] x) => (float[] y) {
        z = Elu (x)
        b = BatchNormalization (z, bn_scale, bn_bias, bn_mean, bn_var)
        y = Einsum <equation = "nct,tu->nu"> (b, k)
    }"""
    return parse(graph, {"k": weights(2, 5, 7), **batch_norm("bn", 4)})


@case(0, ("unknown-op",))
def with_a_letter_that_is_repeated():
    return _behind("bit,tt->bit", "N, 4, 5", held=(5, 5))


@case(0, ("nonlinear",))
def of_two_values():
    graph = """(float[N, 6, 5] x) => (float[] y) {
        t = Conv (x, w)
        u = Softmax (t)
        a = Einsum <equation = "bct,bst->bcs"> (t, u)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 6, 1), **batch_norm("bn", 4)})


# --- its rows in the operator-context matrix

row("Einsum", one("Einsum", "k", equation="bchw,oc->bohw"), k=some(8, 8))
row("Einsum of the last axis", one("Einsum", "k", equation="bchw,wo->bcho"), k=some(6, 6))
row("Einsum that moves the axis", one("Einsum", "k", equation="bchw,co->bhwo"), k=some(8, 5))
row("Einsum of each channel", one("Einsum", "k", equation="bchw,c->bchw"), k=some(8))
row("Einsum of a group each", one("Einsum", "k", equation="bchw,cwo->bcho"), k=some(8, 6, 3))
row("Einsum of a sum", one("Einsum", "k", equation="bchw,ho->bco"), k=some(4, 5))
row("Einsum, the constant first", node("Einsum", ["k", "c"], ["d"], equation="oc,bchw->bohw"), k=some(5, 8))
row("Einsum of a diagonal", one("Einsum", "k", equation="bchw,hh->bchw"), k=some(4, 4))
