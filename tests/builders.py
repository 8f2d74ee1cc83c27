"""Small models for tests: the parts they are made of, and the shapes of graph that many tests need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from sample_models.build import ANY, IMAGE, SAMPLES, batch_norm, bn_node, make, node, tensor, weights

__all__ = [
    "ANY", "CONSTANT", "IMAGE", "SAMPLES", "STATISTICS", "X", "after_conv", "ahead", "batch_norm", "behind_conv",
    "between", "between_factors", "bn", "bn_node", "chain", "conv_then", "exact_batch_norm", "initializer_names",
    "layer_chain", "make", "make_unchecked", "node", "normal", "of_opset", "parse", "positive", "subgraph",
    "tensor", "weights", "without_offset",
]  # fmt: skip

Held = dict[str, NDArray[np.generic]]
"""Initializers by name."""


def output(name: str) -> ValueInfoProto:
    """Return a graph output of float32, of unknown shape."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def normal(*shape: int) -> NDArray[np.float32]:
    """Return standard normal numbers, the same ones for each shape."""
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


# --- BatchNorms of a certain kind


def positive(prefix: str, channels: int, seed: int = 7) -> Held:
    """Return parameters of a BatchNorm all of whose scales are positive."""
    bn = batch_norm(prefix, channels, seed)
    bn[f"{prefix}_scale"] = np.abs(bn[f"{prefix}_scale"])
    return bn


def without_offset(prefix: str, channels: int, seed: int = 7) -> Held:
    """Return parameters of a BatchNorm with positive scales and offset 0: bias and mean are 0."""
    bn = positive(prefix, channels, seed)
    bn[f"{prefix}_bias"][:] = 0
    bn[f"{prefix}_mean"][:] = 0
    return bn


def exact_batch_norm(scale: float, offset: float, channels: int = 4) -> tuple[Held, NodeProto]:
    """Return parameters and node, from ``s`` to ``b``, of a BatchNorm of exactly this transform, in float64 too."""
    one, zero = np.ones(channels, "f4"), np.zeros(channels, "f4")
    held = {"bn_scale": scale * one, "bn_bias": offset * one, "bn_mean": zero, "bn_var": one}
    return held, bn_node("s", "b", "bn", epsilon=0.0)


STATISTICS: Held = {
    "s": np.array([2, 4, 0.5, -1], "f4"),
    "b": np.array([1, 2, -1, 0.5], "f4"),
    "m": np.array([0.3, 0.1, 0.7, 0.9], "f4"),
    "v": np.array([1.1, 0.3, 0.5, 0.7], "f4"),
}
"""Scale, bias, mean and variance of the node that :func:`bn` makes."""

X = tensor("x", [2, 4, 6, 6])
"""An input of as many channels."""


CONSTANT = np.array([0.5, -1.0, 2.0, 0.25], "f4").reshape(1, 4, 1, 1)
"""A number for each of four channels."""


def bn(source: str, target: str = "y") -> NodeProto:
    """Return a BatchNormalization of four channels, with the parameters of :data:`STATISTICS`."""
    return node("BatchNormalization", [source, "s", "b", "m", "v"], [target], name="bn")


# --- graphs around the operators in question


def behind_conv(
    shape: Sequence[int | str],
    weight: NDArray[np.generic],
    channels: int,
    *,
    opset: int = 17,
    ir_version: int = 8,
    bias: NDArray[np.generic] | None = None,
    bn: Held | None = None,
    attributes: Mapping[str, Any] | None = None,
    **conv: Any,
) -> ModelProto:
    """Return Conv → BatchNormalization; ``attributes`` are those of the BatchNorm, further keywords of the Conv."""
    inputs = ["x", "w"] + (["c"] if bias is not None else [])
    nodes = [node("Conv", inputs, ["t"], name="conv", **conv), bn_node("t", "y", "bn", **(attributes or {}))]
    held = {"w": weight, **(bn or batch_norm("bn", channels))}
    if bias is not None:
        held["c"] = bias
    return make(nodes, [tensor("x", shape)], [ANY], held, opset=opset, ir_version=ir_version)


def after_conv(nodes: Sequence[NodeProto], held: Held) -> ModelProto:
    """Return Conv → the given nodes (from ``t`` to ``y``)."""
    conv = node("Conv", ["x", "w"], ["t"], name="conv")
    return make([conv, *nodes], [IMAGE], [ANY], {"w": weights(1, 4, 3, 3, 3), **held})


def between(
    *nodes: NodeProto,
    bn: Held | None = None,
    held: Held | None = None,
    x: ValueInfoProto | None = None,
    w: NDArray[np.generic] | None = None,
    group: int = 1,
    opset: int = 17,
    last: str = "t2",
) -> ModelProto:
    """Return Conv → the given nodes (from ``t`` to ``t2``) → BatchNormalization."""
    conv = node("Conv", ["x", "w"], ["t"], name="conv", group=group)
    tensors = {
        "w": weights(1, 4, 3, 3, 3) if w is None else w,
        **(batch_norm("bn", 4) if bn is None else bn),
        **(held or {}),
    }
    return make([conv, *nodes, bn_node(last, "y", "bn")], [x or IMAGE], [ANY], tensors, opset=opset)


def ahead(
    *nodes: NodeProto,
    bn: Held | None = None,
    held: Held | None = None,
    x: ValueInfoProto | None = None,
    opset: int = 17,
    channels: int = 3,
) -> ModelProto:
    """Return BatchNormalization of the input → the given nodes (from ``b`` to ``y``)."""
    tensors = {**(batch_norm("bn", channels) if bn is None else bn), **(held or {})}
    return make([bn_node("x", "b", "bn"), *nodes], [x or IMAGE], [ANY], tensors, opset=opset)


def chain(
    *nodes: NodeProto, held: Mapping[str, NDArray[np.generic]] | Iterable[Any] = (), gains: Any = None
) -> ModelProto:
    """Return Conv → the given nodes (from ``c`` to ``d``) → BatchNormalization → Sigmoid.

    ``gains`` are the BatchNorm's four scales, which are divided by the root of its variance as usual.
    """
    parts = {**batch_norm("bn", 4, 1), "w": weights(1, 4, 3, 1, 1), **dict(held)}
    if gains is not None:
        parts["bn_scale"] = np.array(gains, "f4")
    every = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        *nodes,
        bn_node("d", "b", "bn"),
        node("Sigmoid", ["b"], ["y"]),
    ]
    return make(every, [tensor("x", [1, 3, 4, 4])], [tensor("y", [1, 4, 4, 4])], parts)


def conv_then(*nodes: NodeProto, **held: NDArray[np.generic]) -> ModelProto:
    """Return Conv → the given nodes (from ``t`` to ``y``), which may use :func:`bn`."""
    first = node("Conv", ["x", "w"], ["t"], name="c")
    return make([first, *nodes], [tensor("x", [2, 3, 8, 8])], [ANY], {"w": normal(4, 3, 1, 1), **STATISTICS, **held})


def between_factors(
    middle: Sequence[NodeProto], held: Held, shape: Sequence[int], behind: Sequence[int], factor: NDArray[np.generic]
) -> ModelProto:
    """Return Mul (a factor for each entry) → the given nodes (from ``c`` to ``d``) → Mul by ``factor``."""
    nodes = [
        node("Sigmoid", ["x"], ["s"]),
        node("Mul", ["s", "k"], ["c"]),
        *middle,
        node("Mul", ["d", "j"], ["e"]),
        node("Sigmoid", ["e"], ["y"]),
    ]
    parts = {"k": weights(1, *shape) + 2, "j": factor, **held}
    return make(nodes, [tensor("x", shape)], [tensor("y", behind)], parts)


def layer_chain(layers: int, *, between: int = 0) -> ModelProto:
    """Return Conv → BatchNormalization → ``between`` Relus, repeated ``layers`` times; all share their weights."""
    rng = np.random.default_rng(0)
    held = [numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype("f4"), "w")]
    held += [numpy_helper.from_array(rng.uniform(0.5, 1.5, 4).astype("f4"), name) for name in ("s", "b", "m", "v")]
    nodes, last = [], "x"
    for k in range(layers):
        nodes.append(helper.make_node("Conv", [last, "w"], [f"c{k}"]))
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", "s", "b", "m", "v"], [f"n{k}"]))
        last = f"n{k}"
        for r in range(between):
            nodes.append(helper.make_node("Relu", [last], [f"r{k}_{r}"]))
            last = f"r{k}_{r}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 2, 2]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- models and graphs out of their parts


def parse(graph: str, held: Mapping[str, NDArray[np.generic]], *, opset: int = 17, ir_version: int = 8) -> ModelProto:
    """Return the model of a graph in ONNX's textual syntax, ``(inputs) => (outputs) { nodes }``, with its constants."""
    parsed = onnx.parser.parse_graph(f"graph {graph}")
    return make(parsed.node, parsed.input, parsed.output, dict(held), opset=opset, ir_version=ir_version)


def make_unchecked(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    held: Mapping[str, NDArray[np.generic]],
    opset: int = 17,
) -> ModelProto:
    """Return a model without shape inference, which would refuse parts that do not fit."""
    tensors = [numpy_helper.from_array(np.asarray(data), name) for name, data in held.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def subgraph(
    nodes: Sequence[NodeProto], name: str, outputs: Sequence[str], inputs: Sequence[ValueInfoProto] = ()
) -> GraphProto:
    """Return the body of an If or a Loop, with outputs of float32 of unknown shape."""
    return helper.make_graph(list(nodes), name, list(inputs), [output(out) for out in outputs])


def of_opset(model: ModelProto, opset: int) -> ModelProto:
    """Put the model under another opset, its BatchNorms at inference in the words of the old ones; return it."""
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset)])
    for each in model.graph.node:
        if each.op_type == "BatchNormalization" and opset < 7:
            each.attribute.append(helper.make_attribute("is_test", 1))
    return model


def initializer_names(model: onnx.ModelProto) -> set[str]:
    """Return the names of the stored constants."""
    return {held.name for held in model.graph.initializer}
