"""Cases of DequantizeLinear (integer weights) and QuantizeLinear."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, IMAGE, batch_norm, between, bn_node, make, node, parse, positive
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(nodes=2)
def weights_dequantized_from_integers():
    rng = np.random.default_rng(1)
    held = {
        "q": rng.integers(-128, 127, (4, 3, 3, 3)).astype("int8"),
        "scale": rng.uniform(0.01, 0.1, 4).astype("float32"),
    }
    held |= {"zero": np.zeros(4, np.int8), **batch_norm("bn", 4)}
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        w = DequantizeLinear <axis = 0> (q, scale, zero)
        t = Conv (x, w)
        y = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, held)


def quantized(bn, low=-127, scale=None, **attributes):
    rng = np.random.default_rng(1)
    held = {"q": rng.integers(low, 127, (4, 3, 3, 3)).astype("int8")}
    held["q"][0, 0, 0, 0] = low
    held["s"] = rng.uniform(0.01, 0.1, 4).astype("float32") if scale is None else scale
    held["z"] = np.zeros(held["s"].shape, np.int8)
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["w"], name="dq", **attributes),
        node("Conv", ["x", "w"], ["t"], name="conv"),
        bn_node("t", "y", "bn"),
    ]
    return make(nodes, [IMAGE], [ANY], {**held, **bn})


@case(nodes=2)
def integer_weights_with_one_scale_for_all():
    return quantized(positive("bn", 4), scale=np.float32(0.05))


@case(nodes=2)
def integer_weights_negated():
    return quantized(batch_norm("bn", 4), axis=0)


@case(0, ("overflow",))
def integer_weights_that_can_not_be_negated():
    bn = positive("bn", 4)
    bn["bn_scale"][0] *= -1
    return quantized(bn, low=-128, axis=0)


@case(0, ("quantized-activation",))
def behind_quantized_activations():
    held = {"s": np.float32(0.05), "z": np.int8(0)}
    return between(
        node("QuantizeLinear", ["t", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["t2"]), held=held
    )
