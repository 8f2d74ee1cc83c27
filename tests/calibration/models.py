"""Models and data that the tests of statistics share."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sample_models.build import batch_norm, bn_node, node, tensor


def statistics_in(path):
    """Mean and variance of every BatchNormalization of a model, by the name of its output."""
    model = onnx.load(path) if not isinstance(path, onnx.ModelProto) else path
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    return {n.output[0]: (held[n.input[3]], held[n.input[4]]) for n in nodes}


def residual(dtype="float32", opset=17, rows="N"):
    """Two BatchNorms in a row around a residual sum, one on a branch, and a shortcut past all of them."""
    rng = np.random.default_rng(3)
    held = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(dtype),
        "v": rng.normal(size=(4, 4, 1, 1)).astype(dtype),
        **{k: v for p in ("a", "b", "d") for k, v in batch_norm(p, 4, seed=len(p), dtype=dtype).items()},
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        bn_node("c", "a", "a"),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "v"], ["e"]),
        bn_node("e", "b", "b"),
        node("Add", ["b", "c"], ["s"]),
        bn_node("s", "y", "d"),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", [rows, 3, 6, 6], kind)], [tensor("y", [rows, 4, 6, 6], kind)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def images(rows=20, dtype="float32", seed=0):
    return (np.random.default_rng(seed).normal(size=(rows, 3, 6, 6)) * 2 + 1).astype(dtype)
