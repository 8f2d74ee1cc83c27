"""Cases of Clip."""

from __future__ import annotations

import numpy as np

from tests.builders import between, node, without_offset
from tests.matrix.row import Row, one, rows_in
from tests.rules.case import Case, cases_in

CASES: list[Case] = []
ROWS: list[Row] = []
case, row = cases_in(CASES), rows_in(ROWS)


def _uniform(gain, shift):
    """Return parameters that give every channel one scale and offset: mean 0, variance 1 - epsilon."""
    ones = np.ones(4, np.float32)
    return {"bn_scale": ones * gain, "bn_bias": ones * shift, "bn_mean": ones * 0, "bn_var": ones}


@case(nodes=2)
def behind_a_clip_with_one_transform_for_all_channels():
    held = {"low": np.float32(-0.2), "high": np.float32(0.3)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=_uniform(1.5, 0.2), held=held)


@case(nodes=2)
def behind_a_clip_negated():
    held = {"low": np.float32(-0.2), "high": np.float32(0.3)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=_uniform(-1.5, 0.2), held=held)


@case(nodes=2)
def behind_a_clip_with_attributes():
    return between(node("Clip", ["t"], ["t2"], min=-0.2, max=0.3), bn=_uniform(1.5, 0.2), opset=9)


@case(0, ("nonlinear",))
def behind_a_clip():
    held = {"low": np.float32(0), "high": np.float32(6)}
    return between(node("Clip", ["t", "low", "high"], ["t2"]), bn=without_offset("bn", 4), held=held)


@case(nodes=2)
def behind_a_clip_that_is_a_relu():
    return between(node("Clip", ["t", "low"], ["t2"]), bn=without_offset("bn", 4), held={"low": np.float32(0)})


# --- its rows in the operator-context matrix

for name, low, high in (("0 6", 0.0, 6.0), ("-1 1", -1.0, 1.0), ("0 0", 0.0, 0.0), ("2 1", 2.0, 1.0)):
    row(f"Clip {name}", one("Clip", "low", "high"), low=np.array(low, "f4"), high=np.array(high, "f4"))
    if low <= high:  # the attributes of what onnxruntime runs
        row(f"Clip {name} by attributes", one("Clip", min=low, max=high), opset=10)
for opset in (11, 12):
    row(
        f"Clip of opset {opset}",
        one("Clip", "low", "high"),
        opset=opset,
        low=np.array(-1, "f4"),
        high=np.array(1, "f4"),
    )
row("Clip from below", one("Clip", "low"), low=np.array(0.0, "f4"))
row("Clip from above", one("Clip", "", "high"), high=np.array(0.5, "f4"))
row("Clip from below by attribute", one("Clip", min=0.25), opset=10)
row("Clip from above by attribute", one("Clip", max=0.25), opset=10)
row("Clip of nothing", one("Clip"))
row("Clip, computed", node("ReduceMean", ["c"], ["low"], keepdims=0), one("Clip", "low"))
