"""Integer weights by the layer that reads them: along which axis the scales must lie."""

import numpy as np
import pytest

from tests.builders import batch_norm, bn_node, chain, make, node, parse, tensor, weights
from tests.folding import assert_equivalent, fold_proto


@pytest.mark.parametrize("op", ["Gemm", "transposed Gemm", "MatMul"])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_integer_weights_of_dense_layers(op, behind, axis):
    """A scale folds into quantization scales along the outputs; along the inputs they are summed over."""
    rng = np.random.default_rng(3)
    out = 5
    shape = (out, 4) if op == "transposed Gemm" else (4, out)
    held = {
        **batch_norm("bn", out if behind else 4, 1),
        "q": rng.integers(-90, 90, shape).astype("i1"),
        "s": rng.uniform(0.01, 0.05, shape[axis]).astype("f4"),
    }
    held["bn_bias"] = held["bn_mean"] = np.zeros_like(held["bn_mean"])
    layer = node("MatMul" if op == "MatMul" else "Gemm", ["l", "v"], ["m"], **({"transB": 1} if "trans" in op else {}))
    nodes = [
        node("Sigmoid", ["x"], ["l" if behind else "b"]),
        *([] if behind else [bn_node("b", "l", "bn")]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        layer,
        *([bn_node("m", "n", "bn")] if behind else []),
        node("Sigmoid", ["n" if behind else "m"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [3, 4])], [tensor("y", [3, out])], held)
    folded, (plan,) = fold_proto(model)
    along = behind and axis == (0 if op == "transposed Gemm" else 1)
    assert bool(plan.folds) is along, plan.outcomes
    assert_equivalent(model, folded, 1024.0)


@pytest.mark.parametrize("axis", [0, 1, -3])
@pytest.mark.parametrize("group", [None, 1, 2])
def test_integer_weights_of_a_transposed_convolution(axis, group):
    """The second axis counts the outputs of one group: with several groups no axis counts all outputs."""
    rng = np.random.default_rng(4)
    columns = 4 // (group or 1)
    shape = (4, columns, 1, 1)
    held = {"q": rng.integers(-90, 90, shape).astype("i1"), "s": rng.uniform(0.01, 0.05, shape[axis]).astype("f4")}
    attributes = {} if group is None else {"group": group}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        node("ConvTranspose", ["t", "v"], ["d"], **attributes),
    ]
    model = chain(*nodes, held=held, gains=[1.0, 2.0, 0.5, 3.0])
    folded, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (axis != 0 and group != 2), plan.outcomes
    assert_equivalent(model, folded, 1024.0)


@pytest.mark.parametrize("gains", [[1.0, 2.0, 0.5, 3.0], [2.0, 2.0, 2.0, 2.0]])
@pytest.mark.parametrize("scales", [(), (2,)])
def test_integer_weights_of_a_grouped_transposed_convolution_are_kept(gains, scales):
    """The second axis counts the outputs of each group, so that two outputs share a quantization scale."""
    held = {"q": np.arange(-4, 4).astype("i1").reshape(4, 2, 1, 1), "s": np.full(scales, 0.02, "f4")}
    nodes = [
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=1),
        node("ConvTranspose", ["t", "v"], ["d"], group=2),
    ]
    model = chain(*nodes, held=held, gains=gains)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "unsupported-dtype"
    assert_equivalent(model, folded, 1.0)


def test_scales_along_the_inputs_absorb_no_factor():
    """Two quantization scales as well as more."""
    held = {"q": np.arange(-4, 4).astype("i1").reshape(4, 2, 1, 1), "s": np.array([0.02, 0.03], "f4")}
    held |= batch_norm("bn", 4, 1) | {"w": weights(1, 2, 3, 1, 1)}
    graph = """(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) {
        c = Conv (x, w)
        v = DequantizeLinear <axis = 1> (q, s)
        d = Conv (c, v)
        b = BatchNormalization (d, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (b)
    }"""
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert "scales along another axis" in kept.detail
    assert_equivalent(model, folded, 1.0)


def test_the_axis_of_scales_is_1_unless_it_is_named():
    held = {"q": np.full((4, 5), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4, 0.5], "f4"), **batch_norm("bn", 5, 1)}
    graph = """(float[3, 4] x) => (float[3, 5] y) {
        l = Sigmoid (x)
        v = DequantizeLinear (q, s)
        m = Gemm (l, v)
        n = BatchNormalization (m, bn_scale, bn_bias, bn_mean, bn_var)
        y = Sigmoid (n)
    }"""
    held["bn_scale"] = np.abs(held["bn_scale"])
    model = parse(graph, held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_integer_matrix_on_the_left_is_kept(axis):
    """Its rows are the outputs, but the scales of MatMul's integer weights are read along the last axis."""
    held = {"q": np.full((4, 4), 3, "i1"), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4"), **batch_norm("bn", 4, 1)}
    nodes = [
        node("Sigmoid", ["x"], ["l"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=axis),
        node("MatMul", ["v", "l"], ["m"]),
        bn_node("m", "n", "bn"),
        node("Sigmoid", ["n"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 4, 3])], [tensor("y", [2, 4, 3])], held)
    folded, (plan,) = fold_proto(model)
    assert not plan.folds
    assert folded.graph.node[2].op_type == "MatMul"


@pytest.mark.parametrize("op", ["ConvTranspose", "MatMul"])
def test_scales_lie_along_axis_1_before_opset_13(op):
    """There DequantizeLinear has no axis attribute, and its scales lie along axis 1."""
    spatial = [1, 1] if op == "ConvTranspose" else []
    held = {"q": np.arange(-6, 6).astype("i1").reshape(3, 4, *spatial), "s": np.array([0.1, 0.2, 0.3, 0.4], "f4")}
    held["g"] = np.array([2.0, 3.0, 4.0, -5.0], "f4").reshape(4, *spatial)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["w"]),
        node(op, ["x", "w"], ["c"]),
        node("Mul", ["c", "g"], ["b"]),
        node("Sigmoid", ["b"], ["y"]),
    ]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", None)], held, opset=12)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1, plan.outcomes
    assert_equivalent(model, folded, 512.0)
