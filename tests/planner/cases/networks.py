"""Cases of whole blocks of well-known networks."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, IMAGE, ahead, batch_norm, bn_node, make, node, positive, weights
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
case = cases_in(CASES)


@case(2, nodes=3)
def arcface_head():
    held = {"w": weights(1, 3 * 64, 5), "c": weights(2, 5), **batch_norm("bn2", 5, 9)}
    return ahead(
        node("Dropout", ["b"], ["d"]),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "w", "c"], ["g"], name="dense"),
        bn_node("g", "y", "bn2"),
        held=held,
    )


@case(4, nodes=10)
def pre_activation_residual_blocks():
    """ResNet v2: BatchNorm, ReLU, padded convolution, twice, around a sum; a BatchNorm and ReLU at the end."""
    nodes, held = [node("Conv", ["x", "w0"], ["s0"], name="stem", pads=[1, 1, 1, 1])], {"w0": weights(1, 4, 3, 3, 3)}
    for block in (1, 2):
        s, t = f"s{block - 1}", f"s{block}"
        nodes += [
            bn_node(s, f"b{block}", f"bn{block}"),
            node("Relu", [f"b{block}"], [f"r{block}"]),
            node("Conv", [f"r{block}", f"w{block}"], [f"c{block}"], name=f"conv{block}", pads=[1, 1, 1, 1]),
            *([bn_node("c2", "n2", "bn9")] if block == 2 else []),
            node("Add", [s, "n2" if block == 2 else f"c{block}"], [t], name=f"sum{block}"),
        ]
        held |= {f"w{block}": weights(10 + block, 4, 4, 3, 3), **positive(f"bn{block}", 4, block)}
    nodes += [bn_node("s2", "b3", "bn3"), node("Relu", ["b3"], ["r3"]), node("GlobalAveragePool", ["r3"], ["p"])]
    nodes += [node("Conv", ["p", "w3"], ["y"], name="head")]
    held |= {"w3": weights(13, 5, 4, 1, 1), **positive("bn3", 4, 3), **batch_norm("bn9", 4, 9)}
    return make(nodes, [IMAGE], [ANY], held)


@case(6, nodes=9)
def arcface_residual_blocks():
    """IResNet: BatchNorm, padded convolution, BatchNorm, PReLU, padded convolution, BatchNorm, around a sum."""
    nodes, held = [node("Conv", ["x", "w0"], ["s0"], name="stem", pads=[1, 1, 1, 1])], {"w0": weights(1, 4, 3, 3, 3)}
    for k in (1, 2):
        nodes += [
            bn_node(f"s{k - 1}", f"a{k}", f"bn{k}a"),
            node("Conv", [f"a{k}", f"w{k}a"], [f"c{k}"], name=f"conv{k}a", pads=[1, 1, 1, 1]),
            bn_node(f"c{k}", f"b{k}", f"bn{k}b"),
            node("PRelu", [f"b{k}", f"slope{k}"], [f"p{k}"]),
            node("Conv", [f"p{k}", f"w{k}b"], [f"d{k}"], name=f"conv{k}b", pads=[1, 1, 1, 1]),
            bn_node(f"d{k}", f"e{k}", f"bn{k}c"),
            node("Add", [f"s{k - 1}", f"e{k}"], [f"s{k}"], name=f"sum{k}"),
        ]
        held |= {f"w{k}{part}": weights(20 * k + i, 4, 4, 3, 3) for i, part in enumerate("ab")}
        held |= {f"slope{k}": np.abs(weights(30 + k, 4, 1, 1)) + np.float32(0.1)}
        for i, part in enumerate("abc"):
            held |= batch_norm(f"bn{k}{part}", 4, 40 * k + i)
    return make([*nodes[:-1], node("Add", ["s1", "e2"], ["y"], name="sum2")], [IMAGE], [ANY], held)
