"""Verification: right folds pass, wrong ones don't, and what can't be decided is said to be inconclusive."""

import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold import isolation
from bnfold.api import Refused, fold, verify
from bnfold.errors import InconclusiveError
from bnfold.options import CHECKS, RunOptions, Tolerances, VerifyOptions
from bnfold.verification.checks.outputs import _specials
from bnfold.verification.runtime import perturbation as noise
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode, device_of
from sample_models.build import ANY, IMAGE, batch_norm, bn_node, make, node, tensor, weights, write


def change(path, name_part, edit, index=0):
    """Edit a tensor of a model on disk."""
    model = onnx.load(path)
    found = [tensor for tensor in model.graph.initializer if name_part in tensor.name]
    data = numpy_helper.to_array(found[index]).copy()
    found[index].CopyFrom(numpy_helper.from_array(edit(data).astype(data.dtype), found[index].name))
    path.write_bytes(model.SerializeToString())


ALL = VerifyOptions(CHECKS)


def checks(comparison):
    return {check.check: check.verdict for check in comparison.verification.checks}


def test_a_right_fold_is_equivalent(pair):
    result = verify(*pair)
    assert result.verification.verdict == "equivalent"
    assert checks(result) == dict.fromkeys(("structure", "weights", "outputs"), "pass")
    assert checks(verify(*pair, ALL)) == dict.fromkeys(CHECKS, "pass")
    assert all(layer.max_ulp <= 0.5 + 1e-6 for layer in result.verification.layers if layer.check == "weights")
    assert {output.level for output in result.verification.outputs} == {"disable", "all"}


def scaled(channel, factor):
    def edit(data):
        data[channel] *= factor
        return data

    return edit


@pytest.mark.parametrize(
    ("edit", "caught"),
    [
        (scaled(3, 1.01), {"weights", "layers", "outputs"}),
        (scaled(3, 1 + 2**-21), {"weights"}),
        (lambda data: data.astype(np.float16), {"weights", "layers", "outputs"}),
        (lambda data: -data, {"weights", "layers", "outputs"}),
        (lambda data: np.roll(data, 1, axis=0), {"weights", "layers", "outputs"}),
        (
            lambda data: np.where(np.arange(data.size).reshape(data.shape) == 5, np.nan, data),
            {"weights", "layers", "outputs"},
        ),
    ],
    ids=["scale", "last bits", "through half", "sign", "neighbour", "nan"],
)
def test_wrong_weights_are_different(pair, edit, caught):
    change(pair[1], "_bnfold", edit)
    result = verify(*pair, ALL)
    assert result.verification.verdict == verify(*pair).verification.verdict == "different"
    assert {check for check, verdict in checks(result).items() if verdict == "fail"} == caught


def test_the_layer_and_its_channel_are_named(pair):
    change(pair[1], "_bnfold", scaled(3, 1.01))
    failed = [layer for layer in verify(*pair, ALL).verification.layers if layer.verdict == "fail"]
    assert {(layer.check, layer.node, tuple(layer.channels)) for layer in failed} == {
        ("weights", "/0/Conv", (3,)),
        ("layers", "/0/Conv", (3,)),
    }


def test_a_dead_channel_is_seen_by_the_layers(tmp_path):
    """Its weights are zero, so no input shows that its bias is wrong after a ReLU that closes it."""
    bn = batch_norm("bn", 4)
    bn["bn_scale"][1], bn["bn_bias"][1] = 0, -3
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "b", "bn"), node("Relu", ["b"], ["y"])]
    original, folded = tmp_path / "dead.onnx", tmp_path / "folded.onnx"
    original.write_bytes(make(nodes, [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **bn}).SerializeToString())
    fold(original, folded)
    change(folded, "_bias_bnfold", scaled(1, 1.5))
    assert checks(verify(original, folded, ALL)) == {
        "structure": "pass",
        "weights": "pass",
        "layers": "fail",
        "outputs": "pass",
    }


def test_missing_and_extra_outputs_are_different(pair):
    model = onnx.load(pair[1])
    model.graph.output.append(onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, None))
    pair[1].write_bytes(model.SerializeToString())
    assert verify(*pair).verification.verdict == "different"


def test_a_model_that_does_not_run_is_different(pair):
    model = onnx.load(pair[1])
    model.graph.node[0].op_type = "NoSuchOperator"
    pair[1].write_bytes(model.SerializeToString())
    result = verify(*pair)
    assert result.verification.verdict == "different"


def test_the_crash_of_onnxruntime_is_an_answer(tmp_path, monkeypatch):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(isolation, "command", lambda *_, **__: [sys.executable, "-c", code])
    with pytest.raises(runtime.RunFailed, match="SIGSEGV"):
        runtime.run(write("conv", tmp_path), [{"x": np.zeros((1, 3, 8, 8), np.float32)}], [RunMode("disable")])


def test_a_run_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    code = "import time; time.sleep(30)"
    monkeypatch.setattr(isolation, "command", lambda *_, **__: [sys.executable, "-c", code])
    with pytest.raises(runtime.RunFailed, match="more than"):
        runtime.run(
            write("conv", tmp_path),
            [{"x": np.zeros((1, 3, 8, 8), np.float32)}],
            [RunMode("disable")],
            limits=runtime.Limits(0.5),
        )


def test_what_fails_is_not_written(tmp_path, samples, monkeypatch):
    import bnfold.planner.apply as fold_module

    honest = fold_module.rounded
    monkeypatch.setattr(fold_module, "rounded", lambda values, dtype: honest(values * 1.01, dtype))
    out = tmp_path / "out.onnx"
    with pytest.raises(Refused, match="weights check fails"):
        fold(samples / "conv.onnx", out)
    assert not out.exists()


def test_tolerances_override_and_are_reported(pair):
    options = VerifyOptions(["outputs"], tolerances=Tolerances(rtol=0.5, atol=0.0))
    change(pair[1], "_bnfold", scaled(3, 1.01))
    result = verify(*pair, options)
    assert result.verification.verdict == "equivalent"
    assert "on request" in result.verification.checks[0].detail


def test_flips_that_the_last_bits_cause_are_no_fault(tmp_path):
    """An index of the largest of two equal numbers is noise."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("GlobalAveragePool", ["b"], ["p"]),
        node("ArgMax", ["p"], ["y"], axis=1, keepdims=0),
    ]
    held = {"w": np.repeat(weights(1, 1, 3, 3, 3), 8, 0), **batch_norm("bn", 8)}
    held |= {name: np.full(8, abs(data[0]) + 0.3, "f4") for name, data in held.items() if name.startswith("bn")}
    model = make(nodes, [tensor("x", [16, 3, 8, 8])], [onnx.helper.make_tensor_value_info("y", 7, None)], held)
    original, folded = tmp_path / "flip.onnx", tmp_path / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    assert fold(original, folded).verification.verdict != "different"


def test_weights_in_constant_nodes_are_moved_too(tmp_path, samples):
    model = onnx.load(samples / "digits.onnx")
    held = list(model.graph.initializer)
    del model.graph.initializer[:]
    for position, stored in enumerate(held):
        model.graph.node.insert(position, node("Constant", [], [stored.name], value=stored))
    original, folded = tmp_path / "constants.onnx", tmp_path / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    result = fold(original, folded).verification
    assert result.verdict == "equivalent"
    assert max(output.error_ratio for output in result.outputs) < 4


def test_bfloat16_is_folded_in_float64_and_rounded_once(tmp_path):
    """onnxruntime's CPU has no bfloat16 convolution: the weights check proves it alone."""
    import ml_dtypes

    held = {name: data.astype(ml_dtypes.bfloat16) for name, data in batch_norm("bn", 4).items()}
    held["w"] = weights(1, 4, 3, 3, 3).astype(ml_dtypes.bfloat16)
    kind = onnx.TensorProto.BFLOAT16
    outputs = [onnx.helper.make_tensor_value_info("y", kind, None)]
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), bn_node("c", "y", "bn")]
    model = make(nodes, [tensor("x", [1, 3, 8, 8], kind)], outputs, held, opset=22, ir_version=10)
    original, folded = tmp_path / "b.onnx", tmp_path / "folded.onnx"
    original.write_bytes(model.SerializeToString())
    result = fold(original, folded)
    assert result.inspection.foldable == 1
    found = verify(original, folded)
    assert checks(found) == {"structure": "pass", "weights": "pass", "outputs": "inconclusive"}
    assert found.verdict == "equivalent"
    assert verify(original, folded, ALL).verdict == "inconclusive"
    assert {t.data_type for t in onnx.load(folded).graph.initializer} == {kind}


def substituted(tmp_path):
    """A model that float64 can't run: its RandomNormal is multiplied by zero."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("RandomNormalLike", ["b"], ["r"], scale=1e-20, seed=1.0),
        node("Add", ["b", "r"], ["y"]),
    ]
    held = {"w": weights(1, 4, 3, 3, 3), **batch_norm("bn", 4)}
    original, folded = tmp_path / "random.onnx", tmp_path / "folded.onnx"
    original.write_bytes(make(nodes, [IMAGE], [ANY], held).SerializeToString())
    return original, folded


@pytest.mark.parametrize("most_moved", [2**27, 50])
def test_without_a_float64_run_the_noise_comes_from_the_original(tmp_path, monkeypatch, most_moved):
    monkeypatch.setattr(noise, "MOST_PERTURBED", most_moved)
    pair = substituted(tmp_path)
    fold(*pair)
    check = verify(*pair, VerifyOptions(["outputs"])).verification.checks[0]
    assert check.verdict == "pass"
    assert "estimated from the original alone" in check.detail
    assert "random" in check.figures["because"]
    change(pair[1], "_bnfold", scaled(2, 1.001))
    assert verify(*pair, VerifyOptions(["outputs"])).verification.verdict == "different"


@pytest.mark.parametrize(
    ("original", "folded", "true", "verdict"),
    [
        ([1, np.nan], [1, np.nan], [1, 2], None),
        ([1, np.inf], [1, 2], [1, 2], "inconclusive"),
        ([1, np.inf], [1, -np.inf], [1, 2], "fail"),
        ([1, 2], [1, np.inf], [1, 2], "fail"),
        ([1, np.inf], [1, 2], [1, np.inf], "fail"),
    ],
    ids=["same", "the original overflows alone", "sign", "the folded one overflows", "it should be infinite"],
)
def test_where_nan_and_infinity_stand(original, folded, true, verdict):
    found = _specials(np.array(original, np.float32), np.array(folded, np.float32), np.array(true, np.float64))
    assert (None if found is None else found[0]) == verdict


def test_memory_is_limited(pair):
    options = VerifyOptions(["outputs"], RunOptions(limits=runtime.Limits(memory=2**20)))
    check = verify(*pair, options).verification.checks[0]
    assert check.verdict == "inconclusive"
    assert "1 MiB are allowed" in check.detail


def test_an_invalid_folded_model_is_different(pair):
    model = onnx.load(pair[1])
    del model.graph.initializer[0]
    pair[1].write_bytes(model.SerializeToString())
    result = verify(*pair).verification
    assert result.verdict == "different"
    assert "not valid" in result.checks[0].detail


def test_cuda_that_is_not_there_is_undecided(pair):
    if "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        pytest.skip("CUDA is there")
    with pytest.raises(InconclusiveError, match="has no CUDA"):
        verify(*pair, VerifyOptions(["outputs"], RunOptions(device="cuda")))


@pytest.mark.parametrize(("name", "value"), [("use_tf32", "yes"), ("use_tf23", "0")])
def test_misspelt_provider_options_are_refused(name, value):
    """onnxruntime would print a line and use the CPU."""
    with pytest.raises(ValueError, match=name):
        device_of("cuda:1").provider_options({name: value})


@pytest.mark.parametrize("policy", [0.4, 1e9])
def test_the_weight_policy_decides(pair, policy):
    result = verify(*pair, VerifyOptions(["structure", "weights"], ulps=policy))
    assert result.verification.verdict == ("different" if policy < 0.5 else "equivalent")
