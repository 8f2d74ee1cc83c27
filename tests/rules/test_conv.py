"""Conv: what folds into it, behind it and in front of it, with padding, groups and biases of any kind."""

import numpy as np
import pytest

from tests.builders import (
    STATISTICS,
    batch_norm,
    bn_node,
    chain,
    make,
    make_unchecked,
    node,
    parse,
    tensor,
    weights,
    without_offset,
)
from tests.folding import assert_equivalent, assert_same, feeds_for, fold_proto, fold_reasons, run
from tests.rules.cases.conv import CASES, ROWS
from tests.rules.operator_tests import OperatorTests


class TestConv(OperatorTests):
    cases, rows = CASES, ROWS


def padded(size, kernel, stride, dilation):
    """Return the padding along an axis for SAME_UPPER: the output has ceil(size / stride) entries."""
    return max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [5, 6, 7, None])
def test_an_offset_folds_into_auto_pad_where_nothing_is_padded(kernel, stride, dilation, size):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, kernel)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Conv", ["b", "w"], ["y"], auto_pad="SAME_UPPER", strides=[stride], dilations=[dilation]),
    ]
    shape = [1, 3, "L" if size is None else size]
    model = make(nodes, [tensor("x", shape)], [tensor("y", [1, 4, None])], held)
    folded, (plan,) = fold_proto(model)
    free = kernel == 1 if size is None else padded(size, kernel, stride, dilation) == 0
    assert bool(plan.folds) is free
    if dilation == 1:  # onnxruntime refuses dilations together with auto_pad
        feeds = feeds_for(model, free=7)
        assert_same(run(model, feeds), run(folded, feeds), 512.0)


@pytest.mark.parametrize("mode", ["", "NOTSET", "VALID", "SAME_UPPER"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_an_empty_auto_pad_is_notset(mode, pads):
    """As onnxruntime reads it: the pads count."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 1, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        bn_node("s", "b", "bn"),
        node("Conv", ["b", "w"], ["c"], auto_pad=mode, **({} if mode in ("VALID", "SAME_UPPER") else {"pads": pads})),
        node("Sigmoid", ["c"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (mode in ("VALID", "SAME_UPPER") or not any(pads))
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("shape", [None, [1, 3, 6], [1, 3, 6, 6]])
def test_auto_pad_needs_a_known_shape(shape):
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 2, 2)}
    nodes = [bn_node("s", "b", "bn"), node("Conv", ["b", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    nodes = [node("Sigmoid", ["x"], ["s"]), *nodes]
    found, _ = fold_reasons(make_unchecked(nodes, [tensor("x", shape)], [tensor("y", None)], held))
    assert found == ["folds" if shape and len(shape) == 4 else "padding"]


@pytest.mark.parametrize("made", ["product", "integers"])
def test_a_computed_bias_is_unchanged_without_an_offset(made):
    held = without_offset("bn", 3, 1) | {"w": weights(1, 4, 3, 1, 1)}
    if made == "product":
        held |= {"one": weights(2, 4), "two": weights(3, 4)}
        first = node("Mul", ["one", "two"], ["k"])
    else:
        held |= {"q": np.array([100, 7, -3, 55], "i4"), "s": np.array(0.0123, "f4")}
        first = node("DequantizeLinear", ["q", "s"], ["k"])
    nodes = [first, bn_node("x", "b", "bn"), node("Conv", ["b", "w", "k"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", None)], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert [n.op_type for n in folded.graph.node] == [first.op_type, "Conv"]
    assert_equivalent(model, folded, 512.0)


def test_the_bias_of_an_input_of_unknown_type_has_the_type_of_the_weight():
    held = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1)}
    graph = """(float[1, 3, 4, 4] s) => (float[] y) {
        c = Conv (s, w)
        b = BatchNormalization (c, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    model.graph.input[0].name = "x"
    model.graph.node.insert(0, node("Strange", ["x"], ["s"], domain="example.org"))
    model.opset_import.add(domain="example.org", version=1)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert {t.data_type for t in folded.graph.initializer} == {1}


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_bias_of_another_size_than_the_channels_is_kept(size):
    model = chain(node("Conv", ["c", "v", "k"], ["d"]), held={"v": weights(2, 4, 4, 1, 1), "k": weights(3, size)})
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (size == 4)


@pytest.mark.parametrize("shift", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_only_what_a_transform_changes_is_written(gain, shift):
    """The weight changes with the scale, the bias with the offset; the rest keeps its bytes."""
    held = {**batch_norm("bn", 3, 1), "w": weights(1, 4, 3, 1, 1), "k": weights(2, 4)}
    held["bn_scale"], held["bn_bias"] = np.full(3, gain, "f4"), np.full(3, shift, "f4")
    held["bn_mean"], held["bn_var"] = np.zeros(3, "f4"), np.full(3, 1.0, "f4")
    graph = """(float[1, 3, 4, 4] x) => (float[] y) {
        s = Sigmoid (x)
        b = BatchNormalization <epsilon = 0.0> (s, bn_scale, bn_bias, bn_mean, bn_var)
        c = Conv (b, w, k)
        y = Sigmoid (c)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    stored = {t.name: t.raw_data for t in folded.graph.initializer}
    before = {t.name: t.raw_data for t in model.graph.initializer}
    (layer,) = (n for n in folded.graph.node if n.op_type == "Conv")
    assert (stored[layer.input[1]] == before["w"]) is (gain == 1)
    assert (stored[layer.input[2]] == before["k"]) is (shift == 0)
    assert_equivalent(model, folded, 512.0)


def test_convolutions_of_no_channels():
    graph = """(float[1, 0, 3, 3] z) => (float[] y) {
        t = Conv (z, w)
        y = BatchNormalization (t, s, b, m, v)
    }"""
    model = parse(graph, {"w": np.zeros((4, 0, 1, 1), "f4"), **STATISTICS})
    assert not fold_proto(model)[1][0].folds
