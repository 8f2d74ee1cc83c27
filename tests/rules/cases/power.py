"""Cases of powers, roots, absolute values and norms: what deviations are made of."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, node, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _pooled(*nodes: str, bn: dict[str, np.ndarray] | None = None, channels: int = 4, opset: int = 17) -> ModelProto:
    """Return a BatchNorm of values that no transform passes, nodes from ``b`` to ``p``, and a Gemm."""
    graph = f"""(float[2, 4, 7] x) => (float[] y) {{
        s = Sin (x)
        b = BatchNormalization (s, bn_scale, bn_bias, bn_mean, bn_var)
        {" ".join(nodes)}
        y = Gemm (p, w, c)
    }}"""
    held = {"w": weights(1, channels, 5), "c": weights(2, 5), "two": np.array(2, "f4"), "eps": np.array(1e-3, "f4")}
    return parse(graph, {**held, **(bn or batch_norm("bn", 4))}, opset=opset)


CENTRED = "m = ReduceMean <axes = [2]> (b)", "d = Sub (b, m)"
NO_OFFSET = {**batch_norm("bn", 4), "bn_bias": np.zeros(4, "f4"), "bn_mean": np.zeros(4, "f4")}


@case(nodes=7)
def before_a_deviation_written_out():
    """Scales of either sign: the root of their square is their size."""
    return _pooled(*CENTRED, "q = Mul (d, d)", "v = ReduceMean <axes = [2], keepdims = 0> (q)", "p = Sqrt (v)")


@case(nodes=8)
def before_a_deviation_with_a_number_below_the_root():
    """The number becomes one for each channel."""
    return _pooled(
        *CENTRED,
        "q = Pow (d, two)",
        "v = ReduceMean <axes = [2], keepdims = 0> (q)",
        "e = Add (v, eps)",
        "p = Sqrt (e)",
    )


@case(nodes=9)
def before_mean_and_deviation_side_by_side():
    return _pooled(
        "o = ReduceMean <axes = [2], keepdims = 0> (b)",
        *CENTRED,
        "q = Mul (d, d)",
        "v = ReduceMean <axes = [2], keepdims = 0> (q)",
        "r = Sqrt (v)",
        "p = Concat <axis = 1> (o, r)",
        channels=8,
    )


@case(nodes=5)
def before_a_norm_of_what_is_left_without_its_mean():
    return _pooled(*CENTRED, "p = ReduceL2 <axes = [2], keepdims = 0> (d)")


@case(nodes=5)
def before_a_sum_of_squares():
    return _pooled(*CENTRED, "p = ReduceSumSquare <axes = [2], keepdims = 0> (d)")


@case(nodes=3)
def before_a_norm_without_an_offset():
    return _pooled("p = ReduceL1 <axes = [2], keepdims = 0> (b)", bn=NO_OFFSET)


@case(0, ("nonlinear",))
def before_a_norm_with_an_offset():
    return _pooled("p = ReduceL2 <axes = [2], keepdims = 0> (b)")


@case(0, ("nonlinear",))
def before_a_deviation_that_is_clipped():
    """The bound would be another in each channel, which a Clip has not."""
    return _pooled(
        *CENTRED,
        "q = Mul (d, d)",
        "v = ReduceMean <axes = [2], keepdims = 0> (q)",
        "e = Clip (v, eps)",
        "p = Sqrt (e)",
    )


@case(0, ("nonlinear",))
def before_a_root_of_values_of_either_sign():
    return _pooled("r = Sqrt (b)", "p = ReduceMean <axes = [2], keepdims = 0> (r)", bn=NO_OFFSET)


@case(nodes=5)
def before_a_cube():
    return _pooled("q = Mul (b, b)", "r = Mul (q, b)", "p = ReduceMean <axes = [2], keepdims = 0> (r)", bn=NO_OFFSET)


@case(nodes=4)
def before_a_reciprocal():
    return _pooled("r = Reciprocal (b)", "p = ReduceMean <axes = [2], keepdims = 0> (r)", bn=NO_OFFSET)


@case(0, ("consumers",))
def before_a_product_with_what_was_before():
    return _pooled("q = Mul (b, s)", "p = ReduceMean <axes = [2], keepdims = 0> (q)")


@case(nodes=4)
def before_a_product_with_what_was_before_without_an_offset():
    return _pooled("q = Mul (b, s)", "p = ReduceMean <axes = [2], keepdims = 0> (q)", bn=NO_OFFSET)


# --- its rows in the operator-context matrix

for op in ("Abs", "Reciprocal"):
    row(op, one(op))
row("Sqrt", node("Abs", ["c"], ["a"]), node("Sqrt", ["a"], ["d"]))
row("Pow 0.5", node("Abs", ["c"], ["a"]), node("Pow", ["a", "k"], ["d"]), k=np.array(0.5, "f4"))
for exponent in (2.0, 3.0, -1.0, 0.0):
    row(f"Pow {exponent}", one("Pow", "k"), k=np.array(exponent, "f4"))
row("Pow of a whole exponent", one("Pow", "k"), k=[2])
row("Pow of an exponent for each channel", one("Pow", "k"), k=some(8, 1, 1))
row("Pow of more axes", one("Pow", "k"), k=np.full((1, 1, 1, 1, 1), 2, "f4"))
for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):
    for axes in ([2, 3], [1]):
        for keep in (0, 1):
            row(f"{op} {axes} keepdims {keep}", one(op, axes=axes, keepdims=keep))
    row(f"{op} by input", one(op, "axes"), opset=18, axes=[2, 3])
