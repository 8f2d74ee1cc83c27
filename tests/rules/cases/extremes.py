"""Cases of Max and Min."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, between, node, parse, positive, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _of_two_convolutions(op: str, *held: str, opset: int = 17, signs: bool = False, **constants: Any) -> ModelProto:
    graph = f"""(float[N, 3, 8, 8] x) => (float[] y) {{
        t = Conv (x, w)
        u = Conv (x, w2)
        a = {op} ({", ".join(("t", *held, "u"))})
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    norm = batch_norm("bn", 4) if signs else positive("bn", 4)
    parts = {"w": weights(1, 4, 3, 3, 3), "w2": weights(2, 4, 3, 3, 3), **norm, **constants}
    return parse(graph, parts, opset=opset)


@case(nodes=2)
def behind_a_maximum_with_a_number():
    return between(node("Max", ["t", "k"], ["t2"]), bn=positive("bn", 4), held={"k": np.float32(0.1)})


@case(nodes=2)
def behind_a_minimum_with_a_number_per_channel():
    return between(node("Min", ["k", "t"], ["t2"]), bn=positive("bn", 4), held={"k": weights(2, 4, 1, 1)})


@case(nodes=2)
def behind_a_maximum_with_nothing():
    """Minus infinity stays what it is."""
    return between(node("Max", ["t", "k"], ["t2"]), bn=positive("bn", 4), held={"k": np.float32(-np.inf)})


@case(nodes=3)
def behind_a_maximum_of_two_convolutions():
    return _of_two_convolutions("Max")


@case(nodes=3)
def behind_a_minimum_of_two_convolutions_and_constants():
    return _of_two_convolutions("Min", "k", "l", k=weights(3, 4, 1, 1), l=np.float32(0.3))


@case(nodes=3)
def behind_a_maximum_of_opset_6_in_a_model_of_opset_7():
    return _of_two_convolutions("Max", opset=7)


@case(nodes=3)
def behind_the_maximum_of_halves():
    """Max feature maps, as LightCNN has them."""
    parts = node("Split", ["t"], ["p", "q"], axis=1)
    return between(parts, node("Max", ["p", "q"], ["t2"]), bn=positive("bn", 4), w=weights(1, 8, 3, 3, 3))


@case(0, ("nonlinear",))
def behind_a_maximum_with_scales_of_either_sign():
    return _of_two_convolutions("Max", signs=True)


@case(0, ("nonlinear",))
def behind_a_maximum_with_a_scale_of_zero():
    norm = positive("bn", 4)
    norm["bn_scale"][1] = 0
    return between(node("Max", ["t", "k"], ["t2"]), bn=norm, held={"k": np.float32(-np.inf)})


@case(0, ("unknown-shape",))
def behind_a_maximum_with_its_own_mean():
    """The mean over all channels is stretched: it can't take a scale per channel."""
    mean = node("ReduceMean", ["t"], ["m"], axes=[1])
    return between(mean, node("Max", ["t", "m"], ["t2"]), bn=positive("bn", 4))


# --- its rows in the operator-context matrix

for op, shape in (("Max", ()), ("Max", (4, 6)), ("Min", (8, 1, 1))):
    row(f"{op} {shape}", one(op, "k"), k=some(*shape))
row("Max that enlarges", one("Max", "k"), shape=(2, 8, 1, 6), k=some(4, 1))
row("Max of opset 7", one("Max", "k"), k=some(2, 8, 4, 6), opset=7)
row("Max of itself", one("Max", "c"))
row("Max of three", node("MaxPool", ["c"], ["p"], kernel_shape=[1, 1]), one("Max", "k", "p"), k=some(8, 1, 1))
row("Max of a branch", node("Sigmoid", ["c"], ["s"]), one("Max", "s"))
row("Max stretched", node("ReduceMean", ["c"], ["m"], axes=[2]), one("Max", "m"))
