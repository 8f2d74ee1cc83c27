"""Weights below the normal range of their type: judged by what rounding them costs at the layer's output."""

import numpy as np
import onnx
import pytest
from onnx import helper

from bnfold.numerics.linear import Scaled, Weight
from tests.builders import bn, make, node, tensor, weights
from tests.folding import fold_proto, reasons


def layer(dtype, scale, bias, spread):
    """Return a Conv of unit rows and its BatchNorm, which divides by ``spread``: folded rows are scale / spread long.

    The four channels of the output have deviation ``scale`` and mean ``bias``.
    """
    held = {"w": weights(1, 4, 16, 1, 1).astype("f8")}
    held["w"] /= np.sqrt(np.square(held["w"]).sum(axis=(1, 2, 3), keepdims=True))
    held |= {"s": scale * np.ones(4), "b": bias * np.ones(4), "m": np.zeros(4), "v": np.square(spread * np.ones(4))}
    held = {name: data.astype(dtype) for name, data in held.items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    return make([node("Conv", ["x", "w"], ["t"]), bn("t")], [tensor("x", [2, 16, 6, 6], kind)], outputs, held)


def one_small(small, others=1.0):
    """Four channels, the second of which is ``small``."""
    return np.array([others, small, others, others])


FOLDS = [
    ("float16", 0.02, 1.0, 200.0),  # weights of 2.5e-5, a bias of 1
    ("float16", one_small(1e-6), one_small(0.3, 0.0), 1.0),  # a channel that is its bias alone
    ("float16", one_small(1e-6), one_small(1e-6, 0.5), 1.0),  # one that is nothing beside the others
    ("float16", one_small(6e-5), 0.1, 1.0),
    ("float32", one_small(1e-40), one_small(1e-12, 0.5), 1.0),
    ("float32", one_small(1e-39), 0.0, 1.0),
    ("float32", one_small(1e-40, 1e-20), one_small(1e-41, 1e-20), 1.0),  # a layer that weight decay has left
]
LOSSY = [
    ("float16", 0.002, 0.0, 200.0),  # weights of 2.5e-6 in steps of 6e-8, and an output of nothing else
    ("float16", one_small(0.002, 0.01), 0.0, 200.0),  # a channel a fifth as large as the others
    ("float16", 1e-5, 0.0, 1.0),
    ("float16", one_small(0.002), 0.001, np.array([1.0, 200.0, 1.0, 1.0])),
    ("float32", 1e-38, 0.0, 1e5),
    ("float32", one_small(1e-37, 1e-36), 0.0, 1e5),
]


@pytest.mark.parametrize(("dtype", "scale", "bias", "spread"), FOLDS)
def test_small_weights_fold_where_they_cost_no_more_than_a_rounding_of_the_output(dtype, scale, bias, spread):
    model = layer(dtype, scale, bias, spread)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds"]
    (new,) = (onnx.numpy_helper.to_array(t).astype("f8") for t in folded.graph.initializer if len(t.dims) == 4)
    held = {t.name: onnx.numpy_helper.to_array(t).astype("f8") for t in model.graph.initializer}
    (norm,) = (made for made in model.graph.node if made.op_type == "BatchNormalization")
    epsilon = next((a.f for a in norm.attribute), 1e-5)
    exact = held["w"] * (held["s"] / np.sqrt(held["v"] + epsilon)).reshape(4, 1, 1, 1)
    data = np.random.default_rng(0).standard_normal((4096, 16)) * spread if np.ndim(spread) == 0 else None
    cost = np.sqrt(np.mean(np.square(data @ (new - exact).reshape(4, 16).T), axis=0))
    size = np.abs(held["s"]) + np.abs(held["b"])
    assert (cost <= 1.1 * np.finfo(dtype).eps / 2 * np.maximum(size, size.max() * np.finfo(dtype).eps / 2)).all()


@pytest.mark.parametrize(("dtype", "scale", "bias", "spread"), LOSSY)
def test_small_weights_that_show_are_refused(dtype, scale, bias, spread):
    _, (plan,) = fold_proto(layer(dtype, scale, bias, spread))
    assert reasons(plan) == ["overflow"]


@pytest.mark.parametrize(("lowest", "folds"), [(2.0**-14, True), (2.0**-15, True), (2.0**-19, False)])
def test_what_counts_is_what_is_lost(lowest, folds):
    """A power of two is stored below the normal range too; a third is not."""
    held = {"w": np.full((4, 4, 1, 1), 1 / 3 if not folds else 1.0, "f2"), "s": np.full(4, lowest, "f2")}
    held |= {"b": np.zeros(4, "f2"), "m": np.zeros(4, "f2"), "v": np.full(4, 1 - 2**-10, "f2")}
    half = onnx.TensorProto.FLOAT16
    bn_node = node("BatchNormalization", ["t", "s", "b", "m", "v"], ["y"], epsilon=2.0**-10)
    outputs = [helper.make_tensor_value_info("y", half, None)]
    model = make([node("Conv", ["x", "w"], ["t"]), bn_node], [tensor("x", [2, 4, 6, 6], half)], outputs, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["folds" if folds else "overflow"]


def test_losses_are_measured_as_the_inputs_see_them():
    """An input that is stored larger makes its weights smaller, and what they lose larger."""
    exact = np.full((1, 1, 2, 1), 1 / 3)
    plain = Scaled(Weight.of(exact), np.full((1, 1), 2.0**-20), None, (1, 2), np.dtype("f2"))
    divided = Scaled(Weight.of(exact), np.ones((1, 1)), np.full((1, 2), 2.0**20), (1, 2), np.dtype("f2"))
    (moved, size), (moved_in, size_in) = plain.losses(), divided.losses()
    assert np.allclose(moved / size, moved_in / size_in)
    stored = np.float64(np.float16(2.0**-20 / 3))
    assert np.allclose(moved / size, abs(stored - 2.0**-20 / 3) / (2.0**-20 / 3))


@pytest.mark.parametrize(("dtype", "weight", "scale"), [("float16", 1e-3, 1e-5), ("float32", 1e-20, 1e-30)])
def test_weights_that_underflow_are_not_dead_channels(dtype, weight, scale):
    held = {"w": np.full((4, 4, 1, 1), weight, dtype), "s": np.full(4, scale, dtype)}
    held |= {"b": np.zeros(4, dtype), "m": np.zeros(4, dtype), "v": np.ones(4, dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    model = make([node("Conv", ["x", "w"], ["t"]), bn("t")], [tensor("x", [2, 4, 6, 6], kind)], outputs, held)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"]
