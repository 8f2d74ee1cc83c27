"""Networks in which a constant input vanishes: what is left is rounding, and noise has to show what a fold does."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.api import fold, verify
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from sample_models.build import ANY, batch_norm, bn_node, make, node, tensor, weights


@pytest.fixture
def pair(tmp_path):
    """A network that normalizes each signal over time, as speech models do; the rest of a constant one is amplified."""
    nodes = [
        node("Conv", ["x", "v"], ["a"]),
        node("InstanceNormalization", ["a", "one", "zero"], ["n"], epsilon=1e-12),
        node("Conv", ["n", "w"], ["c"], name="conv"),
        bn_node("c", "b", "bn"),
        node("Relu", ["b"], ["r"]),
        node("InstanceNormalization", ["r", "one", "zero"], ["y"], epsilon=1e-12),
    ]
    held = {"v": weights(1, 6, 2, 5), "w": weights(2, 6, 6, 3), **batch_norm("bn", 6)}
    held |= {"one": np.ones(6, np.float32), "zero": np.zeros(6, np.float32)}
    path, folded = tmp_path / "m.onnx", tmp_path / "folded.onnx"
    path.write_bytes(make(nodes, [tensor("x", [1, 2, 200])], [ANY], held).SerializeToString())
    fold(path, folded)
    return path, folded


def outputs_on(pair, *kinds):
    options = VerifyOptions(["outputs"], runs=RunOptions(inputs=InputOptions(kinds=kinds)))
    return verify(*pair, options).verification.verdict


def test_noise_decides_where_a_constant_input_shows_nothing(pair):
    assert outputs_on(pair, "constant") == "inconclusive"
    assert outputs_on(pair, "normal", "constant") == "equivalent"


def test_a_fault_in_such_a_network_is_found(pair, tmp_path):
    model = onnx.load(pair[1])
    conv = next(entry for entry in model.graph.node if entry.name == "conv")
    held = next(entry for entry in model.graph.initializer if entry.name == conv.input[1])
    data = numpy_helper.to_array(held).copy()
    data[0] *= 1.01
    held.CopyFrom(numpy_helper.from_array(data, held.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    assert outputs_on((pair[0], tmp_path / "wrong.onnx"), "normal", "constant") == "different"
