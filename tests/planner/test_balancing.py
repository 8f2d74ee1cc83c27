"""Weights out of their type's range: powers of two that the layers around undo bring them back, where these can."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.api import fold
from tests.builders import make, node, tensor
from tests.folding import assert_equivalent, fold_proto, reasons

HALF = onnx.TensorProto.FLOAT16
C = 8


def network(*middle, gain=1e-3, var=2500.0, small=1.0, offset=1e-3, seed=0, end="y", **held):
    """Conv, Relu, Conv and a BatchNorm that makes ``n`` in float16; ``middle`` makes ``e``, a last Conv ``y``.

    The factor of the BatchNorm is ``gain / sqrt(var)``; ``small`` is the size of what the second Conv reads.
    """
    rng = np.random.default_rng(seed)
    parts = {
        "w0": rng.standard_normal((C, C, 1, 1)) / 3 * small,
        "w1": rng.standard_normal((C, C, 3, 3)) * 0.05,
        "w2": rng.standard_normal((C, C, 1, 1)) / 3,
        "s": np.full(C, gain) * rng.uniform(0.7, 1.4, C),
        "b": offset * rng.uniform(-1, 1, C),
        "m": np.zeros(C),
        "v": np.full(C, var),
        **held,
    }
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], name="first"),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], epsilon=1e-5),
        *middle,
    ]
    if end == "y":
        nodes.append(node("Conv", ["e", "w2"], ["y"], name="last"))
    data = {name: np.asarray(array, "f2") for name, array in parts.items()}
    return make(nodes, [tensor("x", [2, C, 6, 6], HALF)], [tensor(end, [2, C, None, None], HALF)], data, ir_version=8)


def constants(model, name):
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (found,) = (n for n in model.graph.node if n.name == name)
    return held[found.input[1]].astype(np.float64)


def assert_power_of_two(changed, stored):
    """Every entry in the normal range is the stored one times a power of two, exactly."""
    normal = np.abs(changed) >= np.finfo("f2").smallest_normal
    assert normal.mean() > 0.5
    fractions, _ = np.frexp(changed[normal])
    expected, _ = np.frexp(stored[normal])
    np.testing.assert_array_equal(fractions, expected)


UNDERFLOW = {"gain": 1e-3, "var": 2500.0}
OVERFLOW = {"gain": 3000.0, "var": 1e-5, "small": 1e-4, "offset": 0.1}

PASSED = {
    "relu": [node("Relu", ["n"], ["e"])],
    "leaky": [node("LeakyRelu", ["n"], ["e"], alpha=0.1)],
    "pool": [node("Relu", ["n"], ["r"]), node("MaxPool", ["r"], ["e"], kernel_shape=[2, 2])],
    "average": [node("AveragePool", ["n"], ["e"], kernel_shape=[2, 2])],
    "sum": [node("Conv", ["r0", "w1"], ["d"], pads=[1, 1, 1, 1]), node("Add", ["n", "d"], ["e"])],
    "concat": [
        node("Concat", ["n", "r0"], ["f"], axis=1),
        node("Relu", ["f"], ["g"]),
        node("Slice", ["g", "starts", "ends", "axes"], ["e"]),
    ],
}


@pytest.mark.parametrize("middle", PASSED)
@pytest.mark.parametrize("numbers", [UNDERFLOW, OVERFLOW], ids=["underflow", "overflow"])
def test_a_scale_goes_on_to_the_layer_behind(middle, numbers, tmp_path):
    bounds = {name: np.array([number]) for name, number in (("starts", 0), ("ends", C), ("axes", 1))}
    model = network(*PASSED[middle], **numbers)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in bounds.items())
    folded, (plan,) = fold_proto(model)
    assert plan.folds, reasons(plan)
    assert plan.folds[0].balanced
    assert_equivalent(model, folded, 16.0)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert fold(tmp_path / "m.onnx", tmp_path / "f.onnx").verification.verdict == "equivalent"


@pytest.mark.parametrize("numbers", [UNDERFLOW, OVERFLOW], ids=["underflow", "overflow"])
def test_the_layer_behind_changes_exponents_alone(numbers):
    model = network(node("Relu", ["n"], ["e"]), **numbers)
    folded, _ = fold_proto(model)
    assert_power_of_two(constants(folded, "last"), constants(model, "last"))
    assert (constants(folded, "last") != constants(model, "last")).any()


def test_where_the_output_is_pinned_the_input_takes_the_scale():
    model = network(node("Sigmoid", ["n"], ["e"]), **OVERFLOW)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, reasons(plan)
    assert_power_of_two(constants(folded, "first"), constants(model, "first"))
    assert_equivalent(model, folded, 16.0)


@pytest.mark.parametrize("end", ["n", "y"])
def test_where_nothing_takes_it_the_batch_norm_stays(end):
    """A graph output, and a Sigmoid: a small weight can't be made larger by what its layer reads."""
    middle = [] if end == "n" else [node("Sigmoid", ["n"], ["e"])]
    model = network(*middle, end=end, **UNDERFLOW)
    folded, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"]
    assert [n.op_type for n in folded.graph.node] == [n.op_type for n in model.graph.node]


def test_a_batch_norm_that_fits_moves_no_scale():
    model = network(node("Relu", ["n"], ["e"]), gain=1.0, var=1.0, offset=0.1)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    assert not plan.folds[0].balanced
    np.testing.assert_array_equal(constants(folded, "last"), constants(model, "last"))
