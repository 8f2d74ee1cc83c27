"""Cases of Mul, Div and Neg."""

from __future__ import annotations

import numpy as np

from tests.builders import ANY, after_conv, batch_norm, between, make, node, tensor, weights
from tests.matrix.row import EVERY_SHAPE, Row, arithmetic_rows, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def negated():
    return between(node("Neg", ["t"], ["t2"]))


@case(nodes=1)
def decomposed_with_square_root():
    held = {name: data.reshape(4, 1, 1) for name, data in batch_norm("bn", 4).items()}
    held["eps"] = np.float32(1e-3)
    return after_conv(
        [
            node("Sub", ["t", "bn_mean"], ["centred"]),
            node("Add", ["bn_var", "eps"], ["ve"]),
            node("Sqrt", ["ve"], ["deviation"]),
            node("Div", ["centred", "deviation"], ["normal"]),
            node("Mul", ["bn_scale", "normal"], ["scaled"]),
            node("Add", ["bn_bias", "scaled"], ["y"], name="bn"),
        ],
        held,
    )


@case(0, ("per-activation",))
def a_vector_as_wide_as_the_image_is_not_per_channel():
    """[W] with W == C broadcasts along the last axis, whatever its length says."""
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    held = {"w": weights(1, 4, 3, 3, 3), "m": weights(2, 4), "k": weights(3, 4)}
    nodes = [conv, node("Mul", ["t", "m"], ["s"]), node("Add", ["s", "k"], ["y"], name="bn")]
    return make(nodes, [tensor("x", [1, 3, 6, 6])], [ANY], held)


@case(0)
def a_constant_of_higher_rank_grows_the_result():
    held = {"m": weights(2, 2, 1, 4, 1, 1), "k": weights(3, 2, 1, 4, 1, 1)}
    return after_conv([node("Mul", ["t", "m"], ["s"]), node("Add", ["s", "k"], ["y"], name="bn")], held)


@case(1, ("skipped",), scales=False)
def scale_chains_not_requested():
    return between(node("Mul", ["t", "k"], ["t2"]), held={"k": weights(2, 4, 1, 1)})


# --- its rows in the operator-context matrix

arithmetic_rows(row, "Mul", EVERY_SHAPE)
arithmetic_rows(row, "Div", EVERY_SHAPE[1:4])
for value in (0.0, np.inf):
    row(f"Mul by {value}", one("Mul", "k"), k=np.array([value, *[1.0] * 7], "f4").reshape(8, 1, 1))
row("Neg", one("Neg"))
