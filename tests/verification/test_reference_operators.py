"""The float64 run beside onnxruntime, operator by operator: those that onnx's reference refuses, or gets wrong."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.io.load import load_bytes
from bnfold.verification.reference.model import Float64Model

RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(high, *shape, low=0):
    return RNG.integers(low, high, shape)


def unique(*shape, axis):
    """Return indices of which none occurs twice along ``axis``: what is scattered has one order."""
    return np.argsort(RNG.random(shape), axis=axis)


BOXES = np.sort(RNG.random((1, 80, 4)).astype(np.float32) * 100, -1)
NMS = [BOXES, RNG.random((1, 3, 80)).astype(np.float32), np.array([20]), np.float32([0.5]), np.float32([0.3])]
GRID = np.clip(1.2 * f(2, 12, 10, 2), -1.8, 1.8)
IMAGE = f(2, 5, 16, 14)
ROI = np.float32([0, 0, 0.13, 0.21, 1, 1, 0.91, 1.1])
ROIS = np.sort(16 * RNG.random((20, 4)).astype(np.float32), -1)


def recurrent(op, gates, *, directions=1, lengths=False, state=False, peephole=False, **attributes):
    time, batch, inner, hidden = 12, 3, 8, 6
    held = [0.4 * f(directions, gates * hidden, n) for n in (inner, hidden)] + [f(directions, 2 * gates * hidden)]
    inputs = [f(time, batch, inner), *held, np.int32([time, 5, 9]) if lengths else None]
    states = [f(directions, batch, hidden) for _ in range(2 if op == "LSTM" else 1)]
    inputs += states if state or peephole else []
    inputs += [f(directions, 3 * hidden)] if peephole else []
    direction = {1: "forward", 2: "bidirectional"}[directions]
    return op, inputs, {"hidden_size": hidden, "direction": direction, **attributes}, len(states) + 1


CASES = [
    ("GatherElements", [f(8, 100, 16), ints(100, 8, 80, 16)], {"axis": 1}),
    ("GatherElements", [f(8, 100, 16), ints(100, 5, 80, 9)], {"axis": 1}),
    ("GatherElements", [f(8, 100), ints(8, 3, 70, low=-8)], {"axis": 0}),
    ("ScatterElements", [f(64, 100), unique(64, 100, axis=1)[:, :30], f(64, 30)], {"axis": 1}),
    ("ScatterElements", [f(16, 64, 100), unique(16, 64, 100, axis=2)[:, :, :50], f(16, 64, 50)], {"axis": 2}),
    ("ScatterElements", [f(64, 100), ints(100, 64, 300, low=-100), f(64, 300)], {"axis": 1, "reduction": "add"}),
    ("ScatterElements", [f(64, 100), ints(100, 64, 300), f(64, 300)], {"axis": 1, "reduction": "max"}),
    ("ScatterND", [f(50, 32), RNG.permutation(50)[:40, None], f(40, 32)], {}),
    ("ScatterND", [f(64, 50, 4), ints(50, 2000, 2), f(2000, 4)], {"reduction": "add"}),
    ("GatherND", [f(8, 50, 32), ints(50, 8, 500, 1, low=-50)], {"batch_dims": 1}),
    ("GatherND", [f(64, 50, 32), ints(50, 2000, 2)], {}),
    ("TopK", [f(8, 300, 20), np.array([10])], {"axis": 1}, 2),
    ("TopK", [ints(5, 8, 300).astype(np.float32), np.array([100])], {"axis": -1, "largest": 0}, 2),
    *(
        ("GridSample", [IMAGE, GRID], {"mode": mode, "padding_mode": padding, "align_corners": aligned})
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    ),
    ("GridSample", [f(2, 3, 8, 9, 10), np.clip(f(2, 5, 6, 7, 3), -1.5, 1.5)], {"mode": "linear"}),
    ("GridSample", [IMAGE, GRID], {"mode": "bilinear"}, 1, 16),
    ("GridSample", [IMAGE, GRID], {"mode": "bicubic", "padding_mode": "border"}, 1, 16),
    *(
        ("Resize", [IMAGE[:1, :4], roi, None, np.array([1, 4, *size])], {"mode": mode, CTM: kind})
        for CTM in ("coordinate_transformation_mode",)
        for mode in ("nearest", "linear", "cubic")
        for size in ((25, 23), (9, 6))
        for kind, roi in (("half_pixel", None), ("pytorch_half_pixel", None), ("tf_crop_and_resize", ROI))
    ),
    *(
        ("Resize", [IMAGE, None, np.float32([1, 1, 0.6, 0.5])], {"mode": mode, "antialias": 1, "exclude_outside": 0})
        for mode in ("linear", "cubic")
    ),
    ("Resize", [IMAGE, None, np.float32([1, 1, 1.6, 1.5])], {"mode": "cubic", "exclude_outside": 1}),
    *(
        ("Resize", [IMAGE, None, None, np.array([31, 33])], {"axes": [2, 3], "keep_aspect_ratio_policy": policy})
        for policy in ("not_larger", "not_smaller")
    ),
    ("Upsample", [IMAGE, np.float32([1, 1, 2, 3])], {"mode": "linear"}, 1, 9),
    ("Upsample", [IMAGE], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, 1, 7),
    ("NonMaxSuppression", NMS, {}),
    ("NonMaxSuppression", NMS, {"center_point_box": 1}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 2),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "storage_order": 1}, 2),
    ("MaxPool", [f(2, 8, 33)], {"kernel_shape": [3], "strides": [2], "dilations": [2]}, 2),
    ("MaxPool", [f(2, 3, 9, 10, 11)], {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}, 2),
    ("MaxPool", [np.round(IMAGE)], {"kernel_shape": [2, 2], "strides": [2, 2]}, 2),
    ("RoiAlign", [IMAGE[:1], ROIS, np.zeros(20, np.int64)], {"output_height": 7, "output_width": 5}),
    ("RoiAlign", [IMAGE[:1], ROIS, np.zeros(20, np.int64)], {"sampling_ratio": 2, "output_width": 3}, 1, 10),
    ("RoiAlign", [IMAGE[:1], ROIS, np.zeros(20, np.int64)], {"sampling_ratio": 2, "mode": "max"}),
    *(recurrent(op, gates, lengths=True, state=True) for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))),
    *(recurrent(op, gates, directions=2, lengths=True) for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))),
    recurrent("LSTM", 4, peephole=True),
    recurrent("LSTM", 4, clip=0.5),
    recurrent("LSTM", 4, activations=["HardSigmoid", "Tanh", "Relu"], activation_alpha=[0.3], activation_beta=[0.4]),
    recurrent("GRU", 3, linear_before_reset=1),
    recurrent("GRU", 3, directions=2, activations=["Sigmoid", "LeakyRelu"] * 2, activation_alpha=[0.1, 0.2]),
    ("LRN", [f(2, 16, 7, 7)], {"size": 5, "alpha": 0.5}),
    ("LRN", [f(3, 16, 7, 7)], {"size": 3, "alpha": 0.5, "beta": 0.5}),
    *(
        (op, [f(8, 3, 30)], {"axis": axis}, 1, opset)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis, opset in ((1, 11), (0, 11), (1, 13))
    ),
    ("GroupNormalization", [f(2, 8, 9, 7), f(4), f(4)], {"num_groups": 4}, 1, 18),
    ("GroupNormalization", [f(2, 8, 9, 7), f(8), f(8)], {"num_groups": 4}, 1, 21),
    ("Pad", [IMAGE, np.array([0, 0, 1, -2, 0, 0, -3, 1])], {}),
    ("Pad", [IMAGE, np.array([1, 2, 3, 1]), None, np.array([2, 3])], {"mode": "reflect"}, 1, 18),
    ("Pad", [IMAGE], {"pads": [0, 0, 1, -1, 0, 0, 1, 1], "value": 2.0}, 1, 8),
    ("Einsum", [f(4, 16, 8, 32), f(4, 20, 8, 32)], {"equation": "bqhd,bkhd->bhqk"}),
    ("Einsum", [f(3, 16, 16), f(3, 16, 16)], {"equation": "...ij,...jk->...ik"}),
    ("DepthToSpace", [f(2, 64, 5, 6)], {"blocksize": 4, "mode": "CRD"}),
    ("CumSum", [f(8, 300), np.array(1)], {"exclusive": 1, "reverse": 1}),
]


def _name(case):
    return f"{case[0]}{''.join(f'-{value}' for value in case[2].values() if isinstance(value, (str, int)))}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_the_float64_run_agrees_with_onnxruntime(case):
    op, inputs, attributes, outputs, opset = (*case, *(1, 20)[len(case) - 3 :])
    names = ["" if value is None else f"i{k}" for k, value in enumerate(inputs)]
    made = [helper.make_node(op, names, [f"o{k}" for k in range(outputs)], **attributes)]
    held = [numpy_helper.from_array(value, name) for name, value in zip(names, inputs, strict=True) if name]
    fed, *held = held
    info = helper.make_tensor_value_info(fed.name, fed.data_type, fed.dims)
    ends = [onnx.ValueInfoProto(name=name) for name in made[0].output]
    graph = helper.make_graph(made, "g", [info], ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()
    feeds = {fed.name: inputs[0]}
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = Float64Model(load_bytes(model)).run(feeds)
    for value, wanted in zip(found.values(), session.run(None, feeds), strict=True):
        assert (value.shape, value.dtype.kind) == (wanted.shape, wanted.dtype.kind)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5)


def test_our_operators_run_in_the_bodies_of_loops():
    """A Loop that gathers from a hundred rows; onnx's own GatherElements can't."""
    body = helper.make_graph(
        [
            helper.make_node("GatherElements", ["carried", "i"], ["picked"], axis=0),
            helper.make_node("Softmax", ["picked"], ["after"], axis=0),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [100, 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [100, 3]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [100, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [100, 3])],
        [numpy_helper.from_array(ints(100, 100, 3), "i"), numpy_helper.from_array(np.array(3), "count")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    feeds = {"x": f(100, 3)}
    expected = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    found = Float64Model(load_bytes(model)).run(feeds)["y"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
