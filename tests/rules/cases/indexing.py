"""Cases of operators that pick or replace entries."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from tests.builders import batch_norm, node, parse, weights
from tests.matrix.row import Row, one, rows_in, some
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _behind(body: str, size: str = "2, 6, 5", inputs: str = "", opset: int = 17, **held: Any) -> ModelProto:
    """Return a Conv ``t`` (and another, ``u``), the body from there to ``a``, the BatchNormalization."""
    graph = f"""(float[{size}] x{inputs}) => (float[] y) {{
        t = Conv (x, w)
        {"u = Conv (x, v)" if "u)" in body or "u," in body else ""}
        {body}
        y = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    }}"""
    parts = {"w": weights(1, 4, 6, 1), "v": weights(2, 4, 6, 1), **batch_norm("bn", 4), **held}
    names = set(graph.replace(",", " ").replace("(", " ").replace(")", " ").split())
    return parse(graph, {name: data for name, data in parts.items() if name in names}, opset=opset)


PLACES_OF_ALL = np.random.default_rng(4).permuted(np.arange(40).reshape(2, 4, 5) % 5, axis=2)
PLACES = np.random.default_rng(5).integers(0, 5, (2, 4, 3))


@case(nodes=2)
def behind_entries_gathered_along_another_axis():
    return _behind("a = GatherElements <axis = -1> (t, places)", places=PLACES)


@case(0, ("channel-axis",))
def behind_entries_gathered_along_the_channels():
    return _behind("a = GatherElements <axis = 1> (t, places)", places=PLACES % 4)


@case(0, ("channel-axis",))
def behind_entries_gathered_of_fewer_channels():
    """Of five channels four are left, which the shapes alone say: the other's scale is not known."""
    return _behind("a = GatherElements <axis = -1> (t, places)", places=PLACES, w=weights(1, 5, 6, 1))


@case(nodes=2)
def behind_items_of_a_batch():
    return _behind("a = GatherND (t, places)", places=np.array([[1], [0], [1]]))


@case(0, ("channel-axis",))
def behind_channels_gathered_by_places():
    body = "g = GatherND <batch_dims = 1> (t, places) a = Transpose <perm = [0, 1, 2]> (g)"
    return _behind(body, places=np.array([[[1], [0], [1], [1]]] * 2))


@case(nodes=3)
def behind_a_gather_of_positions_at_run_time():
    return _behind("i = Cast <to = 7> (z) a = Gather <axis = 2> (t, i)", inputs=", float[3] z")


@case(0, ("dynamic-weights",))
def behind_a_gather_of_channels_at_run_time():
    return _behind("i = Cast <to = 7> (z) a = Gather <axis = 1> (t, i)", inputs=", float[4] z")


@case(nodes=2)
def behind_items_in_reverse():
    """Onnxruntime knows the first two axes alone: each channel is a sequence of the batch's items."""
    return _behind("a = ReverseSequence <batch_axis = 1, time_axis = 0> (t, n)", n=np.array([1, 2, 2, 0]))


@case(0, ("channel-axis",))
def behind_channels_in_reverse():
    return _behind("a = ReverseSequence <batch_axis = 0, time_axis = 1> (t, n)", n=np.array([3, 4]))


@case(nodes=2)
def behind_repeated_positions():
    return _behind("a = Tile (t, n)", n=np.array([1, 1, 3]))


@case(0, ("channel-axis",))
def behind_repeated_channels():
    return _behind("a = Tile (t, n)", n=np.array([1, 2, 1]), w=weights(1, 2, 6, 1))


def _masked(body: str, **held: Any) -> ModelProto:
    """Return what :func:`_behind` does, with a mask ``m`` of the input's shape."""
    body = "m = Greater (x, zero) " + body
    parts = {"zero": np.float32(0), "w": weights(1, 4, 4, 1), "v": weights(2, 4, 4, 1), **held}
    return _behind(body, "2, 4, 5", **parts)


@case(nodes=3)
def behind_a_mask():
    """Masked positions are zero, which becomes the offset of the channel."""
    return _masked("a = Where (m, t, zero)")


@case(nodes=4)
def behind_a_choice_of_two_convolutions():
    return _masked("a = Where (m, t, u)")


@case(0, ("nonlinear",))
def behind_a_choice_by_the_values_themselves():
    return _masked("n = Less (t, u) a = Where (n, t, u)")


@case(nodes=2)
def behind_positions_that_are_replaced_by_a_number():
    places, updates = np.zeros((2, 4, 2), "i8"), np.full((2, 4, 2), 0.25, "f4")
    return _behind("a = ScatterElements <axis = 2> (t, places, k)", places=places, k=updates)


@case(nodes=3)
def behind_positions_that_are_replaced_by_the_old_operator():
    return _behind("a = Scatter <axis = 2> (t, places, u)", places=PLACES_OF_ALL, opset=10)


@case(nodes=3)
def behind_positions_that_are_replaced_by_others():
    return _behind("a = ScatterElements <axis = 2> (t, places, u)", places=PLACES_OF_ALL)


@case(0, ("channel-axis",))
def behind_channels_that_are_replaced():
    return _behind("a = ScatterElements <axis = 1> (t, places, u)", places=PLACES_OF_ALL % 4)


@case(0, ("nonlinear",))
def behind_entries_that_are_added():
    return _behind('a = ScatterElements <axis = 2, reduction = "add"> (t, places, u)', places=PLACES_OF_ALL, opset=18)


@case(nodes=3)
def behind_items_of_a_batch_that_are_replaced():
    return _behind("a = ScatterND (t, places, u)", places=np.array([[1], [0]]))


@case(nodes=2)
def behind_a_canvas_that_is_filled():
    """Zeros with the results of a Conv in some places."""
    return _behind("a = ScatterND (canvas, places, t)", canvas=np.zeros((4, 4, 5), "f4"), places=np.array([[3], [1]]))


@case(0, ("channel-axis",))
def behind_rows_that_are_replaced():
    """The places count the channels."""
    return _behind("a = ScatterND (t, places, k)", places=np.array([[1, 0], [0, 3]]), k=weights(3, 2, 5))


# --- its rows in the operator-context matrix

PLACE = np.random.default_rng(6).integers(0, 4, (2, 8, 3, 6))
row("GatherElements", one("GatherElements", "k", axis=2), k=PLACE)
row("GatherND", one("GatherND", "k"), k=[[1], [0], [1]])
row("GatherND of a batch", one("GatherND", "k", batch_dims=1), k=[[[1], [0]], [[7], [1]]])
row("ReverseSequence", one("ReverseSequence", "k", batch_axis=1, time_axis=0), k=[1, 2, 2, 1, 2, 1, 2, 2])
row("Tile", one("Tile", "k"), k=[1, 2, 1, 2])
row("ScatterElements", one("ScatterElements", "k", "l", axis=3), k=PLACE[:, :, :, :4], l=some(2, 8, 3, 4))
row("ScatterElements of all", one("ScatterElements", "k", "c", axis=3), k=np.arange(384).reshape(2, 8, 4, 6) % 6)
row("ScatterND", one("ScatterND", "k", "l"), k=[[1, 7, 0], [0, 2, 3]], l=some(2, 6))
row("ScatterND of a batch", one("ScatterND", "k", "c"), k=[[1], [0]])
mask = node("Greater", ["c", "k"], ["m"])
row("Where with a number", node("Where", ["m", "c", "k"], ["d"]), k=some(8, 1, 1), m=some(2, 8, 4, 6) > 0)
row("Where of a mask per position", node("Where", ["m", "k", "c"], ["d"]), k=some(), m=some(4, 6) > 0)
row("Where of itself", mask, node("Where", ["m", "c", "k"], ["d"]), k=some(8, 1, 1))
