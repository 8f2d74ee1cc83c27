"""Cases of operators that compute with integers, and of sequences: what is kept beside them, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, parse, weights
from tests.matrix.row import Row
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case = cases_in(CASES)

ONE, ZERO, SIGNED = np.float32(0.05), np.uint8(128), np.int8(0)
KERNEL = np.random.default_rng(3).integers(-100, 100, (4, 3, 3, 3)).astype("i1")
MATRIX = np.random.default_rng(3).integers(-100, 100, (3, 4)).astype("i1")


def _net(body: str, size: str = "2, 3, 8, 8", channels: int = 4, **held: Any) -> ModelProto:
    graph = f"(float[{size}] x) => (float[] y) {{ {body} }}"
    return parse(graph, {**batch_norm("bn", channels), **held})


NORM = "BatchNormalization ({}, bn_scale, bn_bias, bn_mean, bn_var)"
SCALES = {"s": ONE, "z": ZERO, "ws": np.float32(0.01), "wz": SIGNED}


@case(0, ("quantized-activation",))
def behind_a_convolution_of_integers():
    body = f"""
        q = QuantizeLinear (x, s, z)
        c = QLinearConv (q, s, z, w, ws, wz, s, z)
        t = DequantizeLinear (c, s, z)
        y = {NORM.format("t")}"""
    return _net(body, w=KERNEL, **SCALES)


@case(0, ("nonlinear",))
def in_front_of_a_convolution_of_integers():
    """What is in front can't take the transform either, and says so; what is behind rounds."""
    body = f"""
        e = Elu (x)
        n = {NORM.format("e")}
        q = QuantizeLinear (n, s, z)
        c = QLinearConv (q, s, z, w, ws, wz, s, z)
        y = DequantizeLinear (c, s, z)"""
    return _net(body, channels=3, w=KERNEL, **SCALES)


@case(0, ("unsupported-dtype",))
def behind_integers_that_are_cast():
    body = f"""
        q, a, b = DynamicQuantizeLinear (x)
        c = ConvInteger (q, w, b, wz)
        t = Cast <to = 1> (c)
        y = {NORM.format("t")}"""
    return _net(body, w=KERNEL, wz=SIGNED)


@case(1, ("unsupported-dtype",), nodes=5)
def behind_a_dynamically_quantized_product_with_constant_scales():
    """The factor takes the scale, the Add the offset: no integer changes. The two themselves stay."""
    body = f"""
        q, a, b = DynamicQuantizeLinear (x)
        c = MatMulInteger (q, w, b, wz)
        f = Cast <to = 1> (c)
        g = Mul (f, ws)
        i = Add (g, k)
        y = {NORM.format("i")}"""
    return _net(body, "5, 3", w=MATRIX, wz=SIGNED, ws=weights(4, 4), k=weights(5, 4))


@case(0, ("unsupported-dtype",))
def behind_a_product_whose_scale_is_computed():
    """The scale of the input is found at run time, and multiplied by that of the weights."""
    body = f"""
        q, a, b = DynamicQuantizeLinear (x)
        c = MatMulInteger (q, w, b, wz)
        f = Cast <to = 1> (c)
        g = Mul (a, ws)
        h = Mul (f, g)
        i = Add (h, k)
        y = {NORM.format("i")}"""
    return _net(body, "5, 3", w=MATRIX, wz=SIGNED, ws=weights(4, 4), k=weights(5, 4))


@case(0, ("quantized-activation",))
def behind_a_product_of_integers():
    body = f"""
        q = QuantizeLinear (x, s, z)
        c = QLinearMatMul (q, s, z, w, ws, wz, s, z)
        t = DequantizeLinear (c, s, z)
        y = {NORM.format("t")}"""
    return _net(body, "5, 3", w=MATRIX, **SCALES)


@case(1, nodes=3)
def behind_an_entry_of_a_sequence():
    body = f"""
        t = Conv (x, w)
        l = SplitToSequence <axis = 1> (t, four)
        e = SequenceAt (l, one)
        y = {NORM.format("e")}"""
    return _net(body, w=weights(1, 8, 3, 1, 1), four=np.array(4), one=np.array(1))


@case(0, ("unknown-op",))
def behind_a_sequence_that_is_joined():
    body = f"""
        t = Conv (x, w)
        u = Conv (x, v)
        l = SequenceConstruct (t, u)
        e = ConcatFromSequence <axis = 0> (l)
        y = {NORM.format("e")}"""
    return _net(body, w=weights(1, 4, 3, 1, 1), v=weights(2, 4, 3, 1, 1))
