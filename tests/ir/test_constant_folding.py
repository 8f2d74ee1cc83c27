"""Constants that are computed: folded where a runtime has the same number, left where it has another."""

import numpy as np
import onnx
import pytest

from sample_models.build import make, node, tensor, weights
from tests.support import assert_same, feeds_for, fold_proto, run

TYPES = {"float32": 1, "int64": 7, "float16": 10, "bfloat16": 16, "uint4": 21, "int4": 22, "float64": 11}


def scaled(steps, **held):
    """A Conv, and a factor for it that ``steps`` make out of ``held``."""
    nodes = [node("Conv", ["x", "w"], ["c"]), *steps, node("Mul", ["c", "k"], ["m"]), node("Sigmoid", ["m"], ["y"])]
    held = {"w": weights(1, 4, 3, 1, 1), **{name: np.asarray(data) for name, data in held.items()}}
    return make(nodes, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], held, opset=21, ir_version=10)


def cast(source, target, to):
    return node("Cast", [source], [target], to=TYPES[to])


F = np.float32


@pytest.mark.parametrize(
    ("steps", "held", "folds"),
    [
        ([node("Sqrt", ["a"], ["b"]), node("Div", ["d", "b"], ["k"])], {"a": F(3), "d": F(2)}, True),
        ([node("Add", ["a", "b"], ["s"]), node("Sub", ["s", "b"], ["k"])], {"a": F(3), "b": F(1e8)}, False),
        ([node("Add", ["a", "b"], ["s"]), node("Sub", ["s", "b"], ["k"])], {"a": F(3), "b": F(2)}, True),
        ([node("Mul", ["a", "a"], ["s"]), node("Div", ["s", "a"], ["k"])], {"a": F(1e30)}, False),
        ([node("Mul", ["a", "a"], ["s"]), node("Div", ["s", "a"], ["k"])], {"a": F(1e15)}, True),
        ([node("Mul", ["a", "b"], ["s"]), cast("s", "i", "int64"), cast("i", "k", "float32")],
         {"a": F(0.7), "b": F(10)}, True),
        ([node("Mul", ["a", "b"], ["s"]), node("CastLike", ["s", "i"], ["j"]), cast("j", "k", "float32")],
         {"a": F(0.7), "b": F(10), "i": np.int64(1)}, True),
        ([cast("a", "q", "int4"), cast("q", "k", "float32")], {"a": F(3.7)}, False),
        ([cast("a", "q", "uint4"), cast("q", "k", "float32")], {"a": F(2.5)}, False),
        ([cast("a", "h", "float16"), cast("h", "k", "float32")], {"a": F(0.3)}, True),
        ([cast("a", "h", "float16"), node("Add", ["h", "h2"], ["s"]), cast("s", "k", "float32")],
         {"a": F(2048), "h2": np.float16(1)}, False),  # 2048 where it is rounded, 2049 where the casts are dropped
        ([node("ReduceL2", ["a", "axes"], ["l"], keepdims=0), node("Div", ["b", "l"], ["k"])],
         {"a": np.array([3, 4], F), "b": F(2), "axes": np.array([0])}, True),  # a norm, as weight normalization has it
        ([node("MatMul", ["a", "b"], ["k"])], {"a": np.array([3, 4], F), "b": np.array([1, 2], F)}, True),
        ([node("Sign", ["a"], ["s"]), node("Mul", ["s", "b"], ["k"])], {"a": F(-3), "b": F(2)}, True),
        ([node("Add", ["a", "b"], ["s"]), node("Sub", ["s", "b"], ["t"]), node("Sign", ["t"], ["k"])],
         {"a": F(-1), "b": F(1e8)}, False),  # zero where the sum is rounded
        ([node("Greater", ["a", "b"], ["g"]), node("Where", ["g", "a", "b"], ["k"])], {"a": F(3), "b": F(2)}, True),
        ([node("Unsqueeze", ["a", "axes"], ["b"]), node("Mul", ["b", "b"], ["k"])],
         {"a": F(1.5), "axes": np.array([0])}, True),
    ],
)  # fmt: skip
def test_a_constant_counts_where_rounding_on_the_way_does_not_change_it(steps, held, folds):
    model = scaled(steps, **held)
    folded, (plan,) = fold_proto(model)
    shown_text = [getattr(outcome, "reason", "folds") for _, outcome in plan.outcomes]
    assert ("folds" in shown_text) is folds, shown_text
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 512.0)


def test_a_value_that_is_stored_twice_is_no_model():
    from bnfold.errors import InputError
    from bnfold.frontends.onnx.graph import OnnxGraphs
    from bnfold.io.load import load_bytes

    model = scaled([], k=F(2))
    sparse = onnx.helper.make_sparse_tensor(
        onnx.helper.make_tensor("k", 1, [1], [7.0]), onnx.helper.make_tensor("at", 7, [1], [0]), [1]
    )
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(InputError, match="'k' is defined twice"):
        OnnxGraphs(load_bytes(model.SerializeToString()).proto)


@pytest.mark.parametrize("variance", [1e-6, 1.0])
def test_the_default_epsilon_is_a_float32_also_in_float64(variance):
    """As onnxruntime has it, which computes BatchNormalization in float64 too."""
    from sample_models.build import batch_norm, bn_node

    held = {**batch_norm("bn", 4, 1, "float64"), "w": weights(1, 3, 4, dtype="float64")}
    held["bn_var"] = np.full(4, variance)
    nodes = [node("MatMul", ["x", "w"], ["c"]), bn_node("c", "y", "bn")]
    model = make(nodes, [tensor("x", [5, 3], 11)], [tensor("y", [5, 4], 11)], held)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    feeds = feeds_for(model)
    assert_same(run(model, feeds), run(folded, feeds), 64.0)
