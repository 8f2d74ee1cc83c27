"""Onnxruntime's own operators as plain ones of the same shapes, for onnx's shape inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

DOMAIN = "com.microsoft"

KEEPS = frozenset({"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization"})
"""Operators whose outputs have the type and shape of their first input; the second and third are not read."""

FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operators with an activation: without it, and without a further sum, they have the same shape."""


def with_plain_operators(model: ModelProto) -> None:
    """Put plain operators in the place of onnxruntime's, in place: the model is a copy that only inference reads."""
    own = any(function.domain == DOMAIN for function in model.functions)  # which may be of the same name
    if not own and any(opset.domain == DOMAIN for opset in model.opset_import):
        _rewrite(model.graph)


def _rewrite(graph: GraphProto) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _rewrite(body)
    if not any(node.domain == DOMAIN for node in graph.node):
        return
    has_bodies = any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    parts = [_plain(node, matrices) for node in graph.node]
    plain = [other for found in parts for other in (found[:1] if has_bodies else found)]  # bodies are found by place
    graph.initializer.extend(_matrices(graph))
    del graph.node[:]
    graph.node.extend(plain)


def _plain(node: NodeProto, matrices: set[str]) -> list[NodeProto]:
    if node.domain != DOMAIN:
        return [node]
    if node.op_type in KEEPS and node.input:
        skipped = (1, 2) if node.op_type == "SkipLayerNormalization" else ()
        made = [name for place, name in enumerate(node.output) if name and place not in skipped]
        return [helper.make_node("Identity", node.input[:1], [name]) for name in made] or [node]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in FUSED:
        kept = {name: value for name, value in attributes.items() if not name.startswith("activation")}
        return [helper.make_node(FUSED[node.op_type], node.input[:3], node.output, **kept)]
    if node.op_type == "FusedMatMul" and not any(map(attributes.get, ("transBatchA", "transBatchB"))):
        terms = ["ki" if attributes.get("transA") else "ik", "jk" if attributes.get("transB") else "kj"]
        terms = [
            term if name in matrices else f"...{term}" for name, term in zip(node.input, terms, strict=False)
        ]  # onnx follows an ellipsis in one operand alone
        return [helper.make_node("Einsum", node.input, node.output, equation=f"{','.join(terms)}->...ij")]
    if node.op_type == "MatMulNBits" and attributes.get("K", 0) > 0 and attributes.get("N", 0) > 0:
        return [helper.make_node("MatMul", [node.input[0], _matrix_name(attributes)], node.output)]
    return [node]


def _matrix_name(attributes: Mapping[str, Any]) -> str:
    return f"bnfold matrix {attributes['K']} {attributes['N']}"


def _matrices(graph: GraphProto) -> Iterator[TensorProto]:
    """Weights of the sizes that MatMulNBits names, for the products in its place; without data."""
    named: dict[str, list[int]] = {}
    for node in graph.node:
        if node.op_type == "MatMulNBits" and node.domain == DOMAIN:
            found = {attribute.name: attribute.i for attribute in node.attribute}
            if found.get("K", 0) > 0 and found.get("N", 0) > 0:
                named[_matrix_name(found)] = [found["K"], found["N"]]
    for name, dims in named.items():
        yield TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
