"""Cases of whole blocks of well-known networks."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, parse, positive, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(2, nodes=3)
def arcface_head():
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        b = BatchNormalization (x, bn_scale, bn_bias, bn_mean, bn_var)
        d = Dropout (b)
        f = Flatten (d)
        g = Gemm (f, w, c)
        y = BatchNormalization (g, bn2_scale, bn2_bias, bn2_mean, bn2_var)
    }"""
    held = {"w": weights(1, 3 * 64, 5), "c": weights(2, 5), **batch_norm("bn", 3), **batch_norm("bn2", 5, 9)}
    return parse(graph, held)


@case(4, nodes=10)
def pre_activation_residual_blocks():
    """ResNet v2: BatchNorm, ReLU, padded convolution, twice, around a sum; a BatchNorm and ReLU at the end."""
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        s0 = Conv <pads = [1, 1, 1, 1]> (x, w0)

        b1 = BatchNormalization (s0, bn1_scale, bn1_bias, bn1_mean, bn1_var)
        r1 = Relu (b1)
        c1 = Conv <pads = [1, 1, 1, 1]> (r1, w1)
        s1 = Add (s0, c1)

        b2 = BatchNormalization (s1, bn2_scale, bn2_bias, bn2_mean, bn2_var)
        r2 = Relu (b2)
        c2 = Conv <pads = [1, 1, 1, 1]> (r2, w2)
        n2 = BatchNormalization (c2, bn9_scale, bn9_bias, bn9_mean, bn9_var)
        s2 = Add (s1, n2)

        b3 = BatchNormalization (s2, bn3_scale, bn3_bias, bn3_mean, bn3_var)
        r3 = Relu (b3)
        p = GlobalAveragePool (r3)
        y = Conv (p, w3)
    }"""
    held = {"w0": weights(1, 4, 3, 3, 3), "w1": weights(11, 4, 4, 3, 3), "w2": weights(12, 4, 4, 3, 3)}
    held |= {"w3": weights(13, 5, 4, 1, 1), **batch_norm("bn9", 4, 9)}
    for k in (1, 2, 3):
        held |= positive(f"bn{k}", 4, k)
    return parse(graph, held)


@case(6, nodes=9)
def arcface_residual_blocks():
    """IResNet: BatchNorm, padded convolution, BatchNorm, PReLU, padded convolution, BatchNorm, around a sum."""
    graph = """(float[N, 3, 8, 8] x) => (float[] y) {
        s0 = Conv <pads = [1, 1, 1, 1]> (x, w0)

        a1 = BatchNormalization (s0, bn1a_scale, bn1a_bias, bn1a_mean, bn1a_var)
        c1 = Conv <pads = [1, 1, 1, 1]> (a1, w1a)
        b1 = BatchNormalization (c1, bn1b_scale, bn1b_bias, bn1b_mean, bn1b_var)
        p1 = PRelu (b1, slope1)
        d1 = Conv <pads = [1, 1, 1, 1]> (p1, w1b)
        e1 = BatchNormalization (d1, bn1c_scale, bn1c_bias, bn1c_mean, bn1c_var)
        s1 = Add (s0, e1)

        a2 = BatchNormalization (s1, bn2a_scale, bn2a_bias, bn2a_mean, bn2a_var)
        c2 = Conv <pads = [1, 1, 1, 1]> (a2, w2a)
        b2 = BatchNormalization (c2, bn2b_scale, bn2b_bias, bn2b_mean, bn2b_var)
        p2 = PRelu (b2, slope2)
        d2 = Conv <pads = [1, 1, 1, 1]> (p2, w2b)
        e2 = BatchNormalization (d2, bn2c_scale, bn2c_bias, bn2c_mean, bn2c_var)
        y = Add (s1, e2)
    }"""
    held = {"w0": weights(1, 4, 3, 3, 3)}
    for k in (1, 2):
        held |= {f"w{k}{part}": weights(20 * k + i, 4, 4, 3, 3) for i, part in enumerate("ab")}
        held |= {f"slope{k}": np.abs(weights(30 + k, 4, 1, 1)) + np.float32(0.1)}
        for i, part in enumerate("abc"):
            held |= batch_norm(f"bn{k}{part}", 4, 40 * k + i)
    return parse(graph, held)
