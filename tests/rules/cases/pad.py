"""Cases of Pad."""

from __future__ import annotations

import numpy as np

from tests.builders import batch_norm, between, node, parse, positive, weights, without_offset
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


@case(nodes=2)
def behind_a_pad_that_reflects():
    return between(
        node("Pad", ["t", "pads"], ["t2"], mode="reflect"), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    )


@case(0, ("padding",))
def behind_a_pad_with_zeros():
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])})


@case(nodes=2)
def behind_a_pad_with_zeros_without_offset():
    bn = without_offset("bn", 4)
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


@case(nodes=2)
def behind_a_pad_with_one_transform_for_all_channels():
    bn = {name: np.full(4, data[0]) for name, data in positive("bn", 4).items()}
    return between(node("Pad", ["t", "pads"], ["t2"]), held={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, bn=bn)


NEW_CHANNELS = """(float[N, 3, 6, 6] x) => (float[] y) {
    c = Conv (x, w)
    p = Pad (c, pads, v)
    y = BatchNormalization (p, bn_scale, bn_bias, bn_mean, bn_var)
}"""
AHEAD = """(float[N, 3, 6, 6] x) => (float[] y) {
    a = Sigmoid (x)
    b = BatchNormalization (a, bn_scale, bn_bias, bn_mean, bn_var)
    p = Pad (b, pads, v)
    y = Conv (p, w)
}"""
OF_CHANNELS = np.array([0, 1, 0, 0, 0, 2, 0, 0])


def alike_in_new_channels(value: float) -> dict[str, np.ndarray]:
    """Return a BatchNorm of six channels that takes ``value`` to one number in the first and the last two."""
    bn = batch_norm("bn", 6)
    new = [0, 4, 5]
    bn["bn_mean"][new] = value
    bn["bn_bias"][new] = 0.25
    return bn


@case(nodes=2)
def behind_a_pad_of_channels():
    """What was padded stays one number; what was there before takes its own transform."""
    held = {"w": weights(1, 3, 3, 1, 1), "pads": OF_CHANNELS, "v": np.array(0.5, "f4")}
    return parse(NEW_CHANNELS, {**held, **alike_in_new_channels(0.5)})


@case(0, ("padding",))
def behind_a_pad_of_channels_that_would_differ():
    held = {"w": weights(1, 3, 3, 1, 1), "pads": OF_CHANNELS, "v": np.array(0.75, "f4")}
    return parse(NEW_CHANNELS, {**held, **alike_in_new_channels(0.5)})


@case(0, ("channel-axis",))
def behind_a_pad_of_channels_and_positions():
    held = {"w": weights(1, 3, 3, 1, 1), "pads": np.array([0, 1, 0, 0, 0, 2, 0, 1]), "v": np.array(0.5, "f4")}
    return parse(NEW_CHANNELS, {**held, **alike_in_new_channels(0.5)})


@case(0, ("channel-axis",))
def behind_a_pad_that_cuts_channels_off():
    held = {"w": weights(1, 5, 3, 1, 1), "pads": np.array([0, 1, 0, 0, 0, -2, 0, 0]), "v": np.array(0.5, "f4")}
    return parse(NEW_CHANNELS, {**held, **batch_norm("bn", 4)})


@case(nodes=3)
def before_a_pad_of_channels():
    """New channels stay as they are: the layer reads what it read of them."""
    held = {"w": weights(1, 4, 6, 1, 1), "pads": OF_CHANNELS, "v": np.array(0.5, "f4")}
    return parse(AHEAD, {**held, **batch_norm("bn", 3)})


@case(nodes=3)
def before_a_pad_of_some_axes():
    held = {"w": weights(1, 4, 6, 1, 1), "pads": np.array([1, 2]), "v": np.array(0.5, "f4"), "axes": np.array([-3])}
    return parse(AHEAD.replace("pads, v", "pads, v, axes"), {**held, **batch_norm("bn", 3)}, opset=18)


@case(0, ("channel-axis",))
def before_a_pad_that_reflects_channels():
    held = {"w": weights(1, 4, 6, 1, 1), "pads": OF_CHANNELS}
    return parse(AHEAD.replace("Pad (b, pads, v)", 'Pad <mode = "reflect"> (b, pads)'), {**held, **batch_norm("bn", 3)})


@case(folds=2, nodes=7)
def around_a_shortcut_of_new_channels():
    """As networks for small images have it: the sum's scale goes into both branches, the zeros of the shortcut stay."""
    graph = """(float[N, 3, 6, 6] x) => (float[] y) {
        s = Conv (x, w)
        a = Conv (s, u)
        n = BatchNormalization (a, n_scale, n_bias, n_mean, n_var)
        r = Relu (n)
        m = Conv (r, o)
        p = Pad (s, pads)
        t = Add (m, p)
        b = BatchNormalization (t, bn_scale, bn_bias, bn_mean, bn_var)
        y = Conv (b, q)
    }"""
    held = {"w": weights(1, 3, 3, 1, 1), "u": weights(2, 5, 3, 1, 1), "o": weights(3, 6, 5, 1, 1)}
    held |= {"q": weights(4, 2, 6, 1, 1), "pads": OF_CHANNELS}
    return parse(graph, {**held, **batch_norm("n", 5), **batch_norm("bn", 6)})


# --- its rows in the operator-context matrix

for mode in ("constant", "edge", "reflect"):
    for pads in (
        [0, 0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 2],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ):
        row(f"Pad {mode} {pads}", one("Pad", "pads", mode=mode), pads=pads)
        row(f"Pad {mode} {pads} by attribute", one("Pad", mode=mode, pads=pads), opset=10)
for value in (0.0, 0.75):
    row(f"Pad with {value}", one("Pad", "pads", "k"), pads=[0, 0, 1, 1, 0, 0, 1, 1], k=np.array(value, "f4"))
    row(f"Pad with {value} by attribute", one("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=value), opset=10)
for opset in (11, 12):
    row(
        f"Pad of opset {opset}",
        one("Pad", "pads", "k"),
        opset=opset,
        pads=[0, 0, 1, 1, 0, 0, 1, 1],
        k=np.array(0.75, "f4"),
    )
row("Pad of axes", one("Pad", "pads", "", "axes"), opset=18, pads=[1, 1], axes=[3])
row("Pad, computed pads", node("Shape", ["c"], ["s"]), node("Concat", ["s", "s"], ["t"], axis=0),
    node("Mod", ["t", "k"], ["pads"]), one("Pad", "pads", mode="edge"), shape=("N", 8, 4, 6), k=[2])  # fmt: skip
row("Pad, value of many numbers", one("Pad", "pads", "v"), pads=[0, 0, 1, 1, 0, 0, 1, 1], v=np.array(0.5, "f4"))
