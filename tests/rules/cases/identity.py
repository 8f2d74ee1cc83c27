"""Cases of operators that pass a tensor on as it is, or read its shape alone."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.builders import batch_norm, between, node, parse, tensor, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=3)
def identity_and_dropout_between():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        i = Identity (t)
        d = Dropout (i)
        y = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(nodes=5)
def consumers_of_the_size_alone():
    model = between(
        node("Size", ["t"], ["n"]),
        node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        node("Identity", ["t"], ["t2"]),
        node("CastLike", ["f", "t"], ["z"]),
    )
    model.graph.output.append(tensor("z", []))
    return model


@case(0, ("unsupported-dtype",))
def behind_a_cast():
    graph = """(float[N, 3, 8, 8] x) => (double[] y) {
        t = Conv (x, w)
        d = Cast <to = 11> (t)
        y = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    bn = {name: data.astype("float64") for name, data in batch_norm("bn", 4).items()}
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **bn})


@case(nodes=4)
def casts_that_keep_the_type_on_both_sides():
    """Keras 3 writes one before and behind nearly every layer."""
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        c = Cast <to = 1> (t)
        l = CastLike (c, x)
        b = BatchNormalization (l, bn_scale, bn_bias, bn_mean, bn_var)
        y = Cast <to = 1> (b)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)})


@case(nodes=1)
def casts_inside_of_a_decomposed_batch_norm():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        t = Conv (x, w)
        a = Sub (t, mean)
        b = Cast <to = 1> (a)
        c = Cast <to = 1> (b)
        d = Mul (c, gain)
        e = CastLike (d, x)
        y = Add (e, shift)
    }"""
    held = {name: weights(seed, 4, 1, 1) for seed, name in enumerate(("mean", "gain", "shift"))}
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **held})


@case(0, ("unsupported-dtype",))
def behind_a_cast_like_another_type():
    graph = """(float[N, 3, 8, 8] x, double k) => (double[] y) {
        t = Conv (x, w)
        d = CastLike (t, k)
        y = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    bn = {name: data.astype("float64") for name, data in batch_norm("bn", 4).items()}
    return parse(graph, {"w": weights(1, 4, 3, 3, 3), **bn})


# --- its rows in the operator-context matrix

row("Identity", one("Identity"))
row("Dropout", one("Dropout"))
row("Dropout, mask read", node("Dropout", ["c"], ["d", "m"]), node("Shape", ["m"], ["e"]))
row("Dropout, no mask", node("Dropout", ["c"], ["d", ""]))
row("Dropout, mask not read", node("Dropout", ["c"], ["d", "m"]))
row("Shape aside", node("Shape", ["c"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), one("Add", "z"))
row(
    "Size aside",
    node("Size", ["c"], ["s"]),
    node("Cast", ["s"], ["f"], to=1),
    node("Mul", ["f", "f"], ["e"]),
    one("Identity"),
)
row("CastLike aside", node("CastLike", ["k", "c"], ["e"]), one("Identity"), k=np.array([1, 2], "i8"))
row("CastLike", node("CastLike", ["c", "k"], ["d"]), k=some(1))
row("Cast", one("Cast", to=1))
row("Cast to a narrower type and back", node("Cast", ["c"], ["h"], to=10), node("Cast", ["h"], ["d"], to=1))
