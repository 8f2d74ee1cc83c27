"""Graphs nested in a node of an ONNX model, and what is read from inside them."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto


def bodies(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs nested in a node, each with the name of its attribute."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for index, body in enumerate(attribute.graphs):
            yield f"{attribute.name}[{index}]", body


def reads(node: NodeProto) -> Iterator[str]:
    """Every name that a node reads from around it, by itself or inside its subgraphs."""
    yield from (name for name in node.input if name)
    for _, body in bodies(node):
        inner = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
        inner |= {name for child in body.node for name in child.output}
        needed = (name for child in body.node for name in reads(child))
        yield from (name for name in (*needed, *(info.name for info in body.output)) if name not in inner)
