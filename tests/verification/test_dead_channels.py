"""Channels that read nothing, or that nobody reads: what a fold makes of them, and of the others, may be right."""

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, verify
from bnfold.options import VerifyOptions
from sample_models.build import batch_norm, bn_node, make, node, tensor, weights


def network(kind, activation):
    """A channel whose weights are all zero, or one that a layer per channel reads behind a scale of zero."""
    held = {**batch_norm("bn", 4, 1), **batch_norm("b2", 4, 2), "v": weights(5, 4, 4, 1, 1)}
    held["w"] = weights(1, 4, 4, 1, 1)
    held["k"] = weights(3, 4, 1, 3, 3)
    if kind == "zero weights":
        held["w"][1] = 0.0
        held["k"][2, 0, 0, 0] = 0.0  # the first tap alone says nothing
    else:
        held["bn_scale"][1] = 0.0
    nodes = [node("Conv", ["x", "w"], ["c"]), bn_node("c", "b", "bn")]
    if activation:
        window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} if activation.endswith("Pool") else {}
        nodes.append(node(activation, ["b"], ["a"], **window))
    nodes += [
        node("Conv", ["a" if activation else "b", "k"], ["d"], group=4),
        bn_node("d", "e", "b2"),
        node("Relu", ["e"], ["r"]),
        node("Conv", ["r", "v"], ["y"]),
    ]
    return make(nodes, [tensor("x", [1, 4, 8, 8])], [tensor("y", [1, 4, 6, 6])], held)


def folded_by_another(tmp_path, model):
    """The folded model without a word of who folded it, so that both are read side by side."""
    onnx.save(model, tmp_path / "model.onnx")
    fold(tmp_path / "model.onnx", tmp_path / "folded.onnx", FoldOptions(verify=None))
    folded = onnx.load(tmp_path / "folded.onnx")
    del folded.metadata_props[:]
    return folded


def judged(tmp_path, folded):
    onnx.save(folded, tmp_path / "folded.onnx")
    options = VerifyOptions(checks=("structure", "weights"))
    return verify(tmp_path / "model.onnx", tmp_path / "folded.onnx", options).verdict


@pytest.mark.parametrize("activation", [None, "Relu", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("kind", ["zero weights", "zero scale"])
def test_right_folds_of_others(tmp_path, kind, activation):
    folded = folded_by_another(tmp_path, network(kind, activation))
    assert "BatchNormalization" not in {made.op_type for made in folded.graph.node}
    assert judged(tmp_path, folded) == "equivalent"


@pytest.mark.parametrize("activation", [None, "Relu", "Sigmoid", "MaxPool"])
@pytest.mark.parametrize("kind", ["zero weights", "zero scale"])
@pytest.mark.parametrize("part", ["a weight", "a bias", "another row"])
def test_wrong_ones(tmp_path, kind, activation, part):
    """The dead channel wakes up, has another level, or another one dies in its place."""
    folded = folded_by_another(tmp_path, network(kind, activation))
    held = {tensor.name: tensor for tensor in folded.graph.initializer}
    first = next(made for made in folded.graph.node if made.op_type == "Conv")
    name = first.input[2 if part == "a bias" else 1]
    data = onnx.numpy_helper.to_array(held[name]).copy()
    if part == "another row":
        data[3] = 0.0
    else:
        data[1] += 0.25
    held[name].CopyFrom(onnx.numpy_helper.from_array(data, name))
    assert judged(tmp_path, folded) == "different"


def split():
    """A layer of which one channel is normalised, and the others go where nobody looks."""
    held = {**batch_norm("bn", 1, 1), "w": weights(1, 4, 3, 1, 1), "sizes": np.array([1, 3])}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Split", ["c", "sizes"], ["one", "rest"], axis=1),
        bn_node("one", "b", "bn"),
        node("Neg", ["rest"], ["lost"]),
        node("Sigmoid", ["b"], ["y"]),
    ]
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [tensor("y", [1, 1, 8, 8])], held)


def scaled():
    """Of two channels one is dead, the other takes a factor from behind operators that move it."""
    held = {**batch_norm("bn", 2, 1), "w": weights(1, 2, 3, 1, 1), "k": np.array([0.5, 3.0], "f4")}
    held["bn_scale"][0] = 0.0
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        bn_node("c", "b", "bn"),
        node("Transpose", ["b"], ["t"], perm=[0, 2, 3, 1]),
        node("Mul", ["t", "k"], ["m"]),
        node("Sigmoid", ["m"], ["y"]),
    ]
    return make(nodes, [tensor("x", [1, 3, 8, 8])], [tensor("y", [1, 8, 8, 2])], held)


@pytest.mark.parametrize("network", [split, scaled])
@pytest.mark.parametrize("wrong", [False, True])
def test_most_channels_may_be_as_they_were(tmp_path, network, wrong):
    """A layer was not meant to be what it was because most of it is: where all outputs are right, so is the rest."""
    folded = folded_by_another(tmp_path, network())
    (layer,) = (made for made in folded.graph.node if made.op_type == "Conv")
    if wrong:
        (held,) = (each for each in folded.graph.initializer if each.name == layer.input[1])
        data = onnx.numpy_helper.to_array(held).copy()
        data[0 if network is split else 1] *= 1.001
        held.CopyFrom(onnx.numpy_helper.from_array(data, held.name))
    assert judged(tmp_path, folded) == ("different" if wrong else "equivalent")
