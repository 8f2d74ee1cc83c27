"""Cases of Einsum."""

from __future__ import annotations

from onnx import ModelProto

from tests.builders import batch_norm, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _behind(equation: str, shape: str, operands: str = "x, w", held: tuple[int, int] = (6, 4)) -> ModelProto:
    graph = f"""(float[{shape}] x) => (float[] y) {{
        t = Einsum <equation = "{equation}"> ({operands})
        a = Add (t, c)
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    shapes = {3: (4, 1), 4: (4, 1, 1), 2: (4,)}
    rank = shape.count(",") + 1
    return parse(graph, {"w": weights(1, *held), "c": weights(2, *shapes[rank]), **batch_norm("bn", 4)})


@case(nodes=2)
def of_rows():
    return _behind("bi,io->bo", "N, 6")


@case(nodes=2)
def of_rows_by_a_transposed_matrix():
    return _behind("bi,oi->bo", "N, 6", held=(4, 6))


@case(nodes=2)
def of_the_second_of_three_axes():
    return _behind("bit, io -> bot", "N, 6, 5")


@case(nodes=2)
def of_the_second_of_four_axes_the_matrix_first():
    return _behind("oi,bihw->bohw", "N, 6, 5, 3", "w, x", held=(4, 6))


@case(nodes=3)
def behind_a_batch_norm():
    graph = """(float[N, 6, 5] x) => (float[] y) {
        a = Abs (x)
        t = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
        u = Einsum <equation = "bit,io->bot"> (t, w)
        y = Add (u, c)
    }"""
    return parse(graph, {"w": weights(1, 6, 4), "c": weights(2, 4, 1), **batch_norm("bn", 6)})


@case(0, ("graph-input",))
def that_moves_the_axis():
    """It puts the new axis elsewhere, so that the BatchNorm is of another one, which passes."""
    return _behind("bit,io->bto", "N, 6, 4")


@case(0, ("nonlinear",))
def that_scales_each_channel_and_position():
    return _behind("bit,it->bit", "N, 4, 5", held=(4, 5))


# --- its rows in the operator-context matrix

row("Einsum", one("Einsum", "k", equation="bchw,oc->bohw"), k=some(8, 8))
row("Einsum of the last axis", one("Einsum", "k", equation="bchw,wo->bcho"), k=some(6, 6))
