"""Quantized networks (QDQ): right folds, of which onnxruntime makes integer kernels, and faults as small as a step."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.api import fold, verify
from bnfold.io.load import load, load_bytes
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from bnfold.verification.measurement.quantized_steps import FLOATS, INTEGERS, beyond_rounding
from bnfold.verification.onnx.inputs import sample_candidates
from bnfold.verification.onnx.steps import StepsJob, quantizers, run
from bnfold.verification.reference.model import Float64Model
from bnfold.verification.reference.quantization import flipping
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.worker import save_arrays
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights

DEPTH = 5


def float_network():
    """Five convolutions with BatchNorms, one with a residual sum, then a Gemm with a BatchNorm."""
    nodes, held, source = [], {}, "x"
    for k in range(DEPTH):
        held |= {f"w{k}": weights(k, 12, 12 if k else 3, 3, 3) / 3, **batch_norm(f"bn{k}", 12, seed=k)}
        nodes += [
            node("Conv", [source, f"w{k}"], [f"c{k}"], name=f"conv{k}", pads=[1, 1, 1, 1], strides=[1 + (k == 1)] * 2)
        ]
        nodes += [bn_node(f"c{k}", f"b{k}", f"bn{k}"), node("Relu", [f"b{k}"], [f"r{k}"])]
        source = f"r{k}"
    nodes += [
        node("Add", ["r4", "r3"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["p"]),
        node("Flatten", ["p"], ["f"]),
    ]
    nodes += [node("Gemm", ["f", "g"], ["d"], name="dense"), bn_node("d", "y", "last")]
    held |= {"g": weights(9, 12, 6), **batch_norm("last", 6, seed=9)}
    return make(nodes, [tensor("x", ["N", 3, 16, 16])], [ANY], held, opset=17)


def quantized(folder, *, per_channel, signed):
    """Return the network as onnxruntime's own tool quantizes it, with weights of 7 bits: exact on any CPU."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._left = [{"x": weights(k, 2, 3, 16, 16)} for k in range(3)]

        def get_next(self):
            return self._left.pop() if self._left else None

    path, made = folder / "float.onnx", folder / "quantized.onnx"
    path.write_bytes(float_network().SerializeToString())
    quantize_static(
        path, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel, reduce_range=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "Add", "GlobalAveragePool", "Relu"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]},
    )  # fmt: skip
    return made


KINDS = [
    pytest.param((per_channel, signed), id=name, marks=() if name == "channel-u8" else pytest.mark.slow)
    for per_channel, signed, name in (
        (True, False, "channel-u8"),
        (True, True, "channel-s8"),
        (False, False, "tensor-u8"),
        (False, True, "tensor-s8"),
    )
]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A quantized network, its fold, and what the fold's verification said."""
    folder = tmp_path_factory.mktemp("qdq")
    path = quantized(folder, per_channel=request.param[0], signed=request.param[1])
    folded = folder / "folded.onnx"
    return path, folded, fold(path, folded)


def test_a_right_fold_is_equivalent_by_default(pair):
    _, folded, result = pair
    assert result.verification.verdict == "equivalent"
    ops = [entry.op_type for entry in onnx.load(folded).graph.node]
    assert ops.count("BatchNormalization") == 0
    assert ops.count("QuantizeLinear") > DEPTH


@pytest.mark.parametrize("level", ["basic", pytest.param("extended", marks=pytest.mark.slow)])
def test_runs_alone_find_it_equivalent_at_other_levels(pair, level):
    options = VerifyOptions(["outputs"], runs=RunOptions(level=level))
    result = verify(*pair[:2], options).verification
    assert result.verdict == "equivalent"
    assert "steps beyond rounding" in result.checks[0].detail


def errors_of(original, folded, folder, level):
    """Return the errors of each quantized tensor at one level, in steps."""
    fed, _ = next(sample_candidates(load(original), InputOptions()))
    for number, sample in enumerate(fed.samples):
        save_arrays(folder / f"input-{number}.npz", sample.values())
    parts = list(range(len(fed.samples)))
    job = StepsJob(str(original), str(folded), ["x"], 1, parts, "cpu", [RunMode(level)])
    found = run(job, folder)
    assert found.quantized
    assert found.reason is None
    return found.tensors


@pytest.mark.parametrize(("level", "limit"), [("disable", FLOATS), ("all", INTEGERS)])
def test_a_right_fold_stays_far_below_the_limit(pair, tmp_path, level, limit):
    errors = errors_of(*pair[:2], tmp_path, level)
    assert len(errors) == DEPTH + 1  # the Gemm's floats too
    assert max(error.folded for error in errors) < limit / 5


def initializer(model, name):
    return next(entry for entry in model.graph.initializer if entry.name == name)


def edited(model, user, index, change):
    """Let one node read a changed copy of one of its constants."""
    data = numpy_helper.to_array(initializer(model, user.input[index]))
    name = f"{user.input[index]}_changed"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(change(data.copy()), data.dtype), name))
    user.input[index] = name


def channel(data, factor):
    """Change the largest entry: of a bias, one that no Relu hides."""
    flat = np.atleast_1d(data)
    flat[flat.argmax()] *= factor
    return flat.reshape(data.shape)


def swapped(data):
    """Exchange the largest and the smallest entry."""
    first, second = data.argmax(), data.argmin()
    data[[first, second]] = data[[second, first]]
    return data


FAULTS = {
    "a weight scale 1 % off": lambda nodes: (nodes["weight"], 1, lambda data: channel(data, 1.01)),
    "a bias 10 % off": lambda nodes: (nodes["conv"], 2, lambda data: channel(data, 1.1)),
    "two channels of the bias swapped": lambda nodes: (nodes["conv"], 2, swapped),
    "an activation's scale 1 % off": lambda nodes: (nodes["activation"], 1, lambda data: data * np.float32(1.01)),
    "a zero point off by one, reading": lambda nodes: (nodes["activation"], 2, lambda data: data + 1),
    "a zero point off by one, writing": lambda nodes: (nodes["quantize"], 2, lambda data: data + 1),
}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] * (place % 2)) for place, name in enumerate(FAULTS)]
)
def test_faults_as_small_as_a_step_are_found(pair, tmp_path, fault):
    original, folded, _ = pair
    model = onnx.load(folded)
    made = {name: entry for entry in model.graph.node for name in entry.output}
    conv = next(entry for entry in model.graph.node if entry.name == "conv2")
    nodes = {"conv": conv, "activation": made[conv.input[0]], "weight": made[conv.input[1]]}
    nodes["quantize"] = made[nodes["activation"].input[0]]
    edited(model, *FAULTS[fault](nodes))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    assert verify(original, wrong, VerifyOptions(["outputs"])).verification.verdict == "different"
    for level, limit in (("disable", FLOATS), ("all", INTEGERS)):
        assert max(error.folded - error.original for error in errors_of(original, wrong, tmp_path, level)) > 4 * limit


def test_a_fault_behind_the_last_integers_is_found(pair, tmp_path):
    original, folded, _ = pair
    model = onnx.load(folded)
    made = {name: entry for entry in model.graph.node for name in entry.output}
    dense = next(entry for entry in model.graph.node if entry.name == "dense")
    edited(model, made[dense.input[1]], 1, lambda data: data * np.float32(1.01))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    assert verify(original, wrong, VerifyOptions(["outputs"])).verification.verdict == "different"
    assert any(error.name == "y" and error.wrong for error in errors_of(original, wrong, tmp_path, "all"))


def test_rounding_that_is_folded_away_is_different(pair, tmp_path):
    """Without one pair of QuantizeLinear and DequantizeLinear nothing is excused by steps."""
    original, folded, _ = pair
    model = onnx.load(folded)
    made = {name: entry for entry in model.graph.node for name in entry.output}
    conv = next(entry for entry in model.graph.node if entry.name == "conv2")
    dequantize = made[conv.input[0]]
    quantize = made[dequantize.input[0]]
    conv.input[0] = quantize.input[0]
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    assert verify(original, wrong, VerifyOptions(["outputs"])).verification.verdict == "different"


def test_steps_beyond_rounding():
    steps = np.array([0.0, 1.4999, 1.5001, -200.0])
    assert beyond_rounding(np.array([0, 1, 2, -128], np.int8), steps, 0.0) == 0.0
    assert beyond_rounding(np.array([0, 2, 1, -128], np.int8), steps, 0.0) == pytest.approx(1e-4)
    assert beyond_rounding(np.array([1, 1, 2, -128], np.int8), steps, 0.0) == 0.5
    assert beyond_rounding(np.array([128, 129, 130, 0], np.uint8), steps, 128.0) == 0.0


def test_only_activations_near_the_middle_are_flipped():
    """What is far from the middle, and weights, are rounded as ever."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QuantizeLinear", ["w", "s", "z"], ["fixed"]),
        node("Concat", ["q", "fixed"], ["y"], axis=0),
    ]
    held = {"s": np.float32(0.5), "z": np.int8(0), "w": np.float32([0.26, 0.3])}
    out = helper.make_tensor_value_info("y", TensorProto.INT8, None)
    path = load_bytes(make(nodes, [tensor("x", [4])], [out], held).SerializeToString())
    assert list(quantizers(path)) == ["q"]
    feed = {"x": np.float32([0.26, 0.24, -0.26, 0.3])}  # 0.52, 0.48, -0.52 and 0.6 steps
    assert Float64Model(path).run(feed)["y"].tolist() == [1, 0, -1, 1, 1, 1]
    flipped = Float64Model(path, [flipping(quantizers(path), 0.05)]).run(feed)["y"]
    assert flipped.tolist() == [0, 1, 0, 1, 1, 1]
