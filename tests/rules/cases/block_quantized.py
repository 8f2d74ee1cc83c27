"""Cases of onnxruntime's MatMulNBits."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.builders import batch_norm, bn_node, make_unchecked, node, tensor, weights
from tests.matrix.row import Row
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case = cases_in(CASES)

INNER, OUTER, BLOCK = 32, 4, 16


def _model(
    *behind: Any, inputs: tuple[str, ...] = (), source: str = "x", ahead: tuple[Any, ...] = (), **held: Any
) -> ModelProto:
    rng = np.random.default_rng(2)
    product = node(
        "MatMulNBits", [source, "q", "s", *inputs], ["t"], name="product", K=INNER, N=OUTER, bits=4, block_size=BLOCK
    )
    product.domain = "com.microsoft"
    integers = rng.integers(0, 256, (OUTER, INNER // BLOCK, BLOCK // 2)).astype("u1")
    scales = rng.uniform(0.01, 0.1, OUTER * INNER // BLOCK).astype("f4") * rng.choice([-1, 1], OUTER * INNER // BLOCK)
    parts = {"q": integers, "s": scales.astype("f4"), **held}
    result = tensor("y", [2, "size"])
    model = make_unchecked([*ahead, product, *behind], [tensor("x", [2, INNER])], [result], parts)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@case(nodes=2)
def a_scale_goes_into_the_scales_the_offset_stays():
    """Without a bias the offset becomes an Add; negative scales are scales like others."""
    return _model(bn_node("t", "y", "bn"), **batch_norm("bn", OUTER))


@case(nodes=2)
def an_add_behind_takes_the_offset():
    held = {"c": weights(3, OUTER), **batch_norm("bn", OUTER)}
    return _model(node("Add", ["t", "c"], ["a"]), bn_node("a", "y", "bn"), **held)


@case(nodes=1)
def a_bias_takes_the_offset():
    zeros = np.array([[0x57], [0x86], [0x99], [0x78]], "u1")
    held = {"z": zeros.reshape(-1), "b": weights(3, OUTER), **batch_norm("bn", OUTER)}
    return _model(bn_node("t", "y", "bn"), inputs=("z", "", "b"), **held)


@case(0, ("nonlinear",))
def a_transform_of_the_inputs_is_no_scale_of_the_blocks():
    ahead = (node("Elu", ["x"], ["e"]), bn_node("e", "n", "bn"))
    return _model(node("Identity", ["t"], ["y"]), source="n", ahead=ahead, **batch_norm("bn", INNER))


@case(0, ("overflow",))
def scales_that_would_lose_bits():
    norm = batch_norm("bn", OUTER)
    norm["bn_scale"][:] = 1e-37
    return _model(bn_node("t", "y", "bn"), **norm)
