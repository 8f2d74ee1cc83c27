"""The float64 run beside the standard (onnx's own cases for the operators) and onnxruntime (whole models)."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from bnfold.io.load import load, load_bytes
from bnfold.verification.reference.model import Float64Model, NotInFloat64
from sample_models.build import SAMPLES, batch_norm, make, node, tensor, weights, write
from tests.support import feeds_for, run

OURS = (
    "basic_conv", "conv_", "convtranspose", "batchnorm", "maxpool", "averagepool", "cast_", "erf", "gelu", "hardswish",
    "mish", "sigmoid", "resize", "quantizelinear", "dequantizelinear",
)  # fmt: skip


ONNXRUNTIME_DIFFERS = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
"""Sizes that are no whole numbers: onnxruntime, beside which the float64 run stands, rounds them before it aligns."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_operators_that_are_ours_do_what_the_standard_says():
    """Over onnx's own cases: each either agrees or says that it can't run."""
    from onnx.backend.test.case.node import collect_testcases

    ran = 0
    for case in collect_testcases(None):
        if not case.name.removeprefix("test_").startswith(OURS) or case.name in ONNXRUNTIME_DIFFERS:
            continue
        for inputs, expected in case.data_sets or ():
            arrays = [*inputs, *expected]
            if any(not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" for array in arrays):
                continue
            feeds = dict(zip([info.name for info in case.model.graph.input], inputs, strict=True))
            try:
                outputs = Float64Model(load_bytes(case.model.SerializeToString())).run(feeds)
            except NotInFloat64:
                continue
            for value, wanted in zip(outputs.values(), expected, strict=True):
                assert value.shape == wanted.shape, case.name
                tolerance = 1e-2 if wanted.dtype == np.float16 else 5e-4  # some are written down with four digits
                np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance, err_msg=case.name)
                ran += 1
    assert ran > 100


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "training_mode"])
def test_whole_models_agree_with_onnxruntime(name, tmp_path):
    model = load(write(name, tmp_path))
    feeds = feeds_for(model.proto)
    made = Float64Model(model).run(feeds)
    session = ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    for value, expected in zip(made.values(), session.run(None, feeds), strict=True):
        assert value.dtype == np.float64
        assert value.shape == expected.shape
        size = np.abs(value).max()
        assert np.abs(value - expected).max() <= 64 * np.finfo(expected.dtype).eps * size


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_norm_of_every_opset(opset):
    held = batch_norm("bn", 4)
    names = ["x", *(f"bn_{part}" for part in ("scale", "bias", "mean", "var"))]
    model = make([node("BatchNormalization", names, ["y"])], [tensor("x", [2, 4, 5])], [tensor("y", [2, 4, 5])], held,
                 opset=opset)  # fmt: skip
    feeds = feeds_for(model)
    made = Float64Model(load_bytes(model.SerializeToString())).run(feeds)
    np.testing.assert_allclose(made["y"], run(model, feeds)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions_of_any_groups(op, groups):
    shape = (6, 6 // groups, 3, 2) if op == "Conv" else (6, 12 // groups, 3, 2)
    attributes = {"group": groups, "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 2, 1]}
    out = [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = make([node(op, ["x", "w", "b"], ["y"], **attributes)], [tensor("x", [2, 6, 9, 8])], out,
                 {"w": weights(1, *shape), "b": weights(2, 6 if op == "Conv" else 12)})  # fmt: skip
    feeds = feeds_for(model)
    made = Float64Model(load_bytes(model.SerializeToString())).run(feeds)
    np.testing.assert_allclose(made["y"], run(model, feeds)[0], rtol=1e-4, atol=1e-4)


def test_values_are_freed_after_their_last_use():
    """A long chain of large values must not be held side by side."""
    import tracemalloc

    nodes = [node("Relu", [f"v{k}" if k else "x"], [f"v{k + 1}" if k < 19 else "y"]) for k in range(20)]
    model = make(nodes, [tensor("x", [1, 64, 64, 64])], [tensor("y", [1, 64, 64, 64])], {})
    ready, feeds = Float64Model(load_bytes(model.SerializeToString())), feeds_for(model)
    tracemalloc.start()
    ready.run(feeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 8 * 64**3


def test_what_can_not_run_says_why():
    model = make([node("RandomNormalLike", ["x"], ["y"], name="dice")], [tensor("x", [2])], [tensor("y", [2])], {})
    with pytest.raises(NotInFloat64, match="dice"):
        Float64Model(load_bytes(model.SerializeToString()))
