"""Cases of products of two computed values, and of transforms of an axis that a product leaves alone."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, parse, weights
from tests.matrix.row import Row
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case = cases_in(CASES)


BACK = "t2 = Transpose <perm = [0, 2, 1]> (o)"


def _attention(*to_weights: str, product: str = "o = MatMul (a, v)", back: str = BACK) -> ModelProto:
    """Return the values' Conv, weights computed from another input, their product, and a BatchNorm behind it."""
    graph = f"""(float[2, 3, 5] x, float[2, 5, 5] z) => (float[] y) {{
        c = Conv (x, w)
        v = Transpose <perm = [0, 2, 1]> (c)
        {" ".join(to_weights or ("a = Softmax (z)",))}
        {product}
        {back}
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    return parse(graph, {"w": weights(1, 4, 3, 1), **batch_norm("bn", 4)})


@case(nodes=5)
def behind_attention():
    return _attention()


@case(nodes=5)
def behind_attention_with_the_values_first():
    return _attention("s = Softmax (z)", "a = Transpose <perm = [0, 2, 1]> (s)", product="t2 = MatMul (c, a)", back="")


@case(nodes=8)
def behind_weights_that_are_copied_and_viewed():
    return _attention(
        "s = Softmax <axis = 1> (z)",
        "d = Dropout (s)",
        "i = Identity (d)",
        "a = Transpose <perm = [0, 2, 1]> (i)",
    )


@case(nodes=4)
def behind_an_einsum_of_weights_and_values():
    return _attention(product='t2 = Einsum <equation = "bij,bjc->bci"> (a, v)', back="")


@case(nodes=6)
def behind_weights_that_do_not_sum_to_one_the_offset_stays():
    return _attention("a = Sigmoid (z)")


@case(nodes=6)
def behind_a_softmax_of_another_axis_the_offset_stays():
    return _attention("a = Softmax <axis = 1> (z)")


@case(nodes=7)
def behind_a_softmax_that_something_is_made_of_the_offset_stays():
    return _attention("s = Softmax (z)", "a = Sin (s)")


@case(nodes=6)
def behind_attention_over_heads():
    graph = """(float[2, 3, 5] x, float[2, 2, 5, 5] z) => (float[] y) {
        c = Conv (x, w)
        h = Reshape (c, heads)
        a = Softmax (z)
        b = Transpose <perm = [0, 1, 3, 2]> (a)
        o = MatMul (h, b)
        t2 = Reshape (o, whole)
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    held = {"heads": np.array([2, 2, 2, 5]), "whole": np.array([2, 4, 5])}
    return parse(graph, {"w": weights(1, 4, 3, 1), **held, **batch_norm("bn", 4)})


@case(0, ("nonlinear",))
def behind_attention_along_the_queries():
    """Nothing but the weights has that axis, and a Softmax takes no scale."""
    graph = """(float[2, 3, 5] x, float[2, 4, 5] z) => (float[] y) {
        c = Conv (x, w)
        v = Transpose <perm = [0, 2, 1]> (c)
        a = Softmax (z)
        t2 = MatMul (a, v)
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 1), **batch_norm("bn", 4)})


# --- a constant matrix along another axis than that of the channels


def _mixed(matrix: np.ndarray, product: str) -> ModelProto:
    graph = f"""(float[2, 3, 5] x) => (float[] y) {{
        c = Conv (x, w)
        t2 = MatMul ({product})
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    return parse(graph, {"w": weights(1, 4, 3, 1), "m": matrix.astype("f4"), **batch_norm("bn", 4)})


@case(nodes=2)
def behind_means_of_positions():
    """Fractions that are rounded to float32 sum to 1 within a rounding of the offset."""
    return _mixed(np.full((5, 3), 1 / 5), "c, m")


@case(nodes=2)
def behind_sums_of_positions():
    return _mixed(np.eye(5) - 3, "c, m")


@case(nodes=3)
def behind_positions_that_are_mixed_the_offset_stays():
    return _mixed(weights(3, 5, 5), "c, m")


@case(nodes=3)
def behind_differences_of_positions_the_offset_stays():
    """An offset is lost: there is none that could be added before."""
    return _mixed(np.eye(5) - np.roll(np.eye(5), 1, 0), "c, m")


@case(nodes=2)
def behind_several_matrices_of_which_each_mixes_positions_without_an_offset():
    bn = batch_norm("bn", 4)
    bn["bn_bias"] = bn["bn_mean"] * 0
    bn["bn_mean"] = bn["bn_mean"] * 0
    graph = """(float[2, 3, 5] x) => (float[] y) {
        c = Conv (x, w)
        t2 = MatMul (c, m)
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 1), "m": weights(3, 2, 5, 6), **bn})


# --- Attention


def _heads(
    attributes: str = "", more: str = "", held: dict[str, np.ndarray] | None = None, keys: str = "5"
) -> ModelProto:
    graph = f"""(float[2, 3, {keys}] x, float[2, 4, 6] q, float[2, {keys}, 6] k MASK) => (float[] y) {{
        c = Conv (x, w)
        v = Transpose <perm = [0, 2, 1]> (c)
        o = Attention <q_num_heads = 2, kv_num_heads = 2{attributes}> (q, k, v{more})
        t2 = Transpose <perm = [0, 2, 1]> (o)
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }}""".replace("MASK", ", bool[4, 5] m" if more and not held else "")
    return parse(graph, {"w": weights(1, 4, 3, 1), **(held or {}), **batch_norm("bn", 4)}, opset=23, ir_version=11)


@case(nodes=4)
def behind_an_attention():
    return _heads()


@case(nodes=4)
def behind_a_causal_attention():
    return _heads(", is_causal = 1")


@case(nodes=4)
def behind_an_attention_with_a_constant_mask():
    return _heads(more=", m", held={"m": np.tri(4, 5, dtype=bool)})


@case(nodes=5)
def behind_an_attention_that_a_constant_mask_hides_all_from_the_offset_stays():
    return _heads(more=", m", held={"m": np.tri(4, 5, -1, dtype=bool)})


@case(nodes=5)
def behind_an_attention_with_a_computed_mask_the_offset_stays():
    return _heads(more=", m")


@case(nodes=5)
def behind_an_attention_to_no_more_keys_than_there_are_the_offset_stays():
    return _heads(keys="K")


@case(0, ("unknown-shape",))
def behind_an_attention_whose_queries_share_heads():
    graph = """(float[2, 3, 5] x, float[2, 4, 6] q, float[2, 5, 3] k) => (float[] y) {
        c = Conv (x, w)
        v = Transpose <perm = [0, 2, 1]> (c)
        o = Attention <q_num_heads = 2, kv_num_heads = 1> (q, k, v)
        t2 = Transpose <perm = [0, 2, 1]> (o)
        y = BatchNormalization (t2, bn_scale, bn_bias, bn_mean, bn_var)
    }"""
    return parse(graph, {"w": weights(1, 4, 3, 1), **batch_norm("bn", 8)}, opset=23, ir_version=11)
