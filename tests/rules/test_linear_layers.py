"""What Conv, ConvTranspose, Gemm and MatMul have in common."""

import numpy as np
import onnx
import pytest

from bnfold.api import FoldOptions, fold, verify
from bnfold.errors import InputError
from tests.builders import (
    batch_norm,
    bn_node,
    exact_batch_norm,
    initializer_names,
    make,
    node,
    parse,
    tensor,
    weights,
    without_offset,
)
from tests.folding import assert_equivalent, fold_proto


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize(
    ("gain", "shift"), [(2.0, 0.0), (2.0, 1.0), (0.5, 0.0), (0.5, 1.0), (1.0, 2.0), (1.0, 1.0), (-1.0, 1.0)]
)
def test_a_layer_absorbs_simple_transforms(op, gain, shift):
    held, norm = exact_batch_norm(gain, shift)
    spatial = [1, 1] if op == "Conv" else []
    held["w"] = weights(1, *([3, 4, 1, 1] if op == "Conv" else [4, 3]))
    held["k"] = weights(2, 3)
    layer = [node(op, ["b", "w"] if op == "MatMul" else ["b", "w", "k"], ["m"])]
    layer += [node("Add", ["m", "k"], ["d"])] if op == "MatMul" else [node("Identity", ["m"], ["d"])]
    nodes = [node("Sigmoid", ["x"], ["s"]), norm, *layer, node("Sigmoid", ["d"], ["y"])]
    model = make(nodes, [tensor("x", [2, 4, *spatial])], [tensor("y", [2, 3, *spatial])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
def test_a_layer_absorbs_a_scale_of_zero_behind_it(op):
    held, _ = exact_batch_norm(0.0, 3.0)
    spatial = [1, 1] if op == "Conv" else []
    held["w"] = weights(1, *([4, 3, 1, 1] if op == "Conv" else [3, 4]))
    held["k"] = weights(2, 4)
    layer = [node(op, ["x", "w"] if op == "MatMul" else ["x", "w", "k"], ["m"])]
    layer += [node("Add", ["m", "k"], ["s"])] if op == "MatMul" else [node("Identity", ["m"], ["s"])]
    nodes = [*layer, bn_node("s", "b", "bn", epsilon=0.0), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", [2, 4, *spatial])], held)
    folded, (plan,) = fold_proto(model)
    assert len(plan.folds) == 1
    assert_equivalent(model, folded, 1.0)


@pytest.mark.parametrize(
    ("layer", "held", "code", "says"),
    [
        (node("Conv", ["c", "v"], ["d"], group=0), {"v": weights(2, 4, 4, 1, 1)}, "unknown-shape", "has shape"),
        (node("Conv", ["c", "v"], ["d"], group=4), {"v": weights(2, 6, 1, 1, 1)}, "unknown-shape", "don't divide"),
        (node("Gemm", ["f", "v", "k"], ["d"]), {"v": weights(2, 4, 4), "k": weights(3, 3)}, "unknown-shape", "C of"),
        (node("MatMul", ["f", "v"], ["d"]), {"v": weights(2, 4, 0)}, "unknown-shape", "one constant and an input"),
        (node("Gemm", ["f", "v"], ["d"]), {"v": weights(2, 4, 0)}, "unknown-shape", "has shape"),
    ],
)
def test_inconsistent_layers_are_kept(layer, held, code, says):
    flat = layer.op_type in ("Gemm", "MatMul")
    parts = {**batch_norm("bn", held["v"].shape[-1 if flat else 0], 1), "w": weights(1, 4, 3, 1, 1), **held}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        *([node("Flatten", ["c"], ["f"])] if flat else []),
        layer,
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    try:
        model = make(nodes, [tensor("x", [1, 3, 1, 1])], [tensor("y", None)], parts)
        _, (plan,) = fold_proto(model)
    except InputError as error:  # the loader has refused it
        assert "shape" in str(error)
        return
    ((_, kept),) = plan.outcomes
    assert kept.reason == code
    assert says in kept.detail


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_a_bias_of_minus_infinity_is_preserved(tmp_path, op):
    """As for classes that a model must never predict; a scale in front of the layer does not change the bias."""
    spatial = [1, 1] if op == "Conv" else []
    held = without_offset("bn", 3, 1) | {"w": weights(1, *([4, 3, 1, 1] if op == "Conv" else [3, 4]))}
    held["k"] = np.array([0.1, -np.inf, 0.2, 0.3], "f4")
    nodes = [bn_node("x", "b", "bn"), node(op, ["b", "w", "k"], ["y"])]
    model = make(nodes, [tensor("x", [2, 3, *spatial])], [tensor("y", [2, 4, *spatial])], held)
    onnx.save(model, tmp_path / "model.onnx")
    result = fold(tmp_path / "model.onnx", tmp_path / "folded.onnx")
    assert (result.inspection.foldable, result.verdict) == (1, "equivalent")
    assert "k" in initializer_names(onnx.load(tmp_path / "folded.onnx"))


def test_minus_infinity_in_place_of_a_number_is_a_difference(tmp_path):
    """Equal infinities are equal; an infinity beside a number is not."""
    held = without_offset("bn", 3, 1) | {"w": weights(1, 4, 3, 1, 1), "k": np.array([0.1, -np.inf, 0.2, 0.3], "f4")}
    graph = """(float[2, 3, 1, 1] x) => (float[2, 4, 1, 1] y) {
        b = BatchNormalization (x, bn_scale, bn_bias, bn_mean, bn_var)
        y = Conv (b, w, k)
    }"""
    model = parse(graph, held)
    onnx.save(model, tmp_path / "model.onnx")
    fold(tmp_path / "model.onnx", tmp_path / "folded.onnx", FoldOptions(verify=None))
    folded = onnx.load(tmp_path / "folded.onnx")
    (bias,) = [held for held in folded.graph.initializer if held.name == "k"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0.1, -np.inf, -np.inf, 0.3], "f4"), "k"))
    onnx.save(folded, tmp_path / "folded.onnx")
    assert verify(tmp_path / "model.onnx", tmp_path / "folded.onnx").verdict == "different"


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_bias_that_is_a_graph_input_is_overridable(op):
    held = batch_norm("bn", 4, 1) | {"w": weights(1, *([4, 3] if op == "Conv" else [3, 4]), 1, 1), "k": weights(2, 4)}
    nodes = [node(op, ["x", "w", "k"], ["c"]), bn_node("c", "b", "bn"), node("Sigmoid", ["b"], ["y"])]
    model = make(nodes, [tensor("x", [1, 3, 4, 4]), tensor("k", [4])], [tensor("y", None)], held)
    _, (plan,) = fold_proto(model)
    ((_, kept),) = plan.outcomes
    assert kept.reason == "overridable"
