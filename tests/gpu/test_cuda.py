"""Verification on CUDA: run where there is a GPU and onnxruntime-gpu, skipped with the reason elsewhere."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from bnfold.api import FoldOptions, fold, verify
from bnfold.errors import InconclusiveError
from bnfold.options import RunOptions, VerifyOptions


def why_not() -> str | None:
    """What is missing for CUDA, in a sentence."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} has no CUDA provider"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    infos = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "probe", infos[:1], infos[1:]), ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    return None if session.get_providers()[0] == "CUDAExecutionProvider" else "there is no GPU, or no driver for it"


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no CUDA: {REASON}")

CUDA = VerifyOptions(runs=RunOptions(device="cuda"))


@pytest.mark.parametrize("name", ["digits", "conv", "half", "conv_transpose_grouped", "shared_weight", "gemm_beta"])
def test_right_folds_are_equivalent(name, samples, tmp_path):
    out = tmp_path / "folded.onnx"
    fold(samples / f"{name}.onnx", out, FoldOptions(verify=None))
    found = verify(samples / f"{name}.onnx", out, CUDA).verification
    assert found.verdict == "equivalent", found.checks
    assert found.device["used"] == "cuda"
    assert found.device["provider_options"]["use_tf32"] == "0"
    assert {output.tf32 for output in found.outputs} == {False, True}


def test_faults_are_seen_that_tf32_would_hide(samples, tmp_path):
    out = tmp_path / "folded.onnx"
    fold(samples / "digits.onnx", out, FoldOptions(verify=None))
    model = onnx.load(out)
    tensor = next(t for t in model.graph.initializer if "_bnfold" in t.name)
    data = numpy_helper.to_array(tensor).copy()
    data[3] *= 1.0001
    tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))
    out.write_bytes(model.SerializeToString())
    found = verify(samples / "digits.onnx", out, CUDA).verification
    failed = {check.check for check in found.checks if check.verdict == "fail"}
    assert failed == {"weights", "layers", "outputs"}


def test_runs_repeat_bit_for_bit(samples, tmp_path):
    out = tmp_path / "folded.onnx"
    fold(samples / "digits.onnx", out, FoldOptions(verify=None))
    first, second = (verify(samples / "digits.onnx", out, CUDA).verification.outputs for _ in range(2))
    assert first == second


def test_compute_on_the_cpu_is_refused(tmp_path):
    """NonMaxSuppression has no CUDA kernel."""
    nodes = [onnx.helper.make_node("NonMaxSuppression", ["b", "s"], ["y"], name="nms")]
    infos = [
        onnx.helper.make_tensor_value_info("b", 1, [1, 4, 4]),
        onnx.helper.make_tensor_value_info("s", 1, [1, 1, 4]),
        onnx.helper.make_tensor_value_info("y", 7, [None, 3]),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", infos[:2], infos[2:]), ir_version=8)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    strict = VerifyOptions(["outputs"], RunOptions(device="cuda", cpu_nodes="none"))
    with pytest.raises(InconclusiveError, match="on the CPU"):
        verify(path, path, strict)
