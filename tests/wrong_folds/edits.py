"""Small edits of an ONNX graph; each fault is made of a few of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Tensor = NDArray[Any]
Item = TypeVar("Item")
Change = Callable[[Tensor], Tensor]


def copied(model: ModelProto) -> ModelProto:
    """A copy to edit."""
    return ModelProto.FromString(model.SerializeToString())


def turned(key: str, items: Sequence[Item]) -> list[Item]:
    """The same items, beginning somewhere else for each key: so that not all faults fall on the first layer."""
    start = zlib.crc32(key.encode()) % max(len(items), 1)
    return [*items[start:], *items[:start]]


def nodes_of(model: ModelProto, *ops: str) -> list[NodeProto]:
    """All nodes of these operators."""
    return [made for made in model.graph.node if made.op_type in ops]


def named(model: ModelProto, name: str) -> NodeProto | None:
    """The node of this name."""
    return next((made for made in model.graph.node if made.name == name), None)


def stored(model: ModelProto, name: str) -> TensorProto | None:
    """The initializer of this name."""
    return next((held for held in model.graph.initializer if held.name == name), None)


def values(model: ModelProto, name: str) -> Tensor:
    """The numbers of the initializer of this name."""
    held = stored(model, name)
    assert held is not None, name
    return numpy_helper.to_array(held)


def put(model: ModelProto, name: str, data: Tensor) -> None:
    """Give the initializer of this name other numbers, rounded once to its own type; or make a new one."""
    held = stored(model, name)
    with np.errstate(over="ignore"):
        if held is None:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(data, order="C"), name))
        else:
            data = np.asarray(data, order="C").astype(numpy_helper.to_array(held).dtype)
            held.CopyFrom(numpy_helper.from_array(data, name))


def set_attribute(made: NodeProto, name: str, value: Any) -> None:
    """Set an attribute, or remove it if the value is None."""
    kept = [attribute for attribute in made.attribute if attribute.name != name]
    del made.attribute[:]
    made.attribute.extend(kept)
    if value is not None:
        made.attribute.append(helper.make_attribute(name, value))


def attribute(made: NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    return next((helper.get_attribute_value(a) for a in made.attribute if a.name == name), default)


def bypass(model: ModelProto, made: NodeProto) -> None:
    """Remove a node; who read its output reads its first input, and an output of the graph keeps its name."""
    source, target = made.input[0], made.output[0]
    model.graph.node.remove(made)
    if target in {info.name for info in model.graph.output}:
        producer = next(other for other in model.graph.node if source in other.output)
        producer.output[list(producer.output).index(source)] = target
        source, target = target, source
    reread(model, target, source)


def reread(model: ModelProto, old: str, new: str) -> None:
    """Let every consumer of ``old`` read ``new``."""
    for consumer in model.graph.node:
        for position, name in enumerate(consumer.input):
            if name == old:
                consumer.input[position] = new


def insert(model: ModelProto, target: str, op: str, *others: str, **attributes: Any) -> None:
    """Put an operator behind the tensor ``target``, for all its consumers; an output of the graph keeps its name."""
    graph = model.graph
    if target in {info.name for info in graph.input}:
        position, inner = 0, f"{target}_changed"
        reread(model, target, inner)
        made = helper.make_node(op, [target, *others], [inner], name=f"{target}_extra", **attributes)
    else:
        producer = next(made for made in graph.node if target in made.output)
        position, inner = list(graph.node).index(producer) + 1, f"{target}_unchanged"
        producer.output[list(producer.output).index(target)] = inner
        made = helper.make_node(op, [inner, *others], [target], name=f"{target}_extra", **attributes)
    graph.node.insert(position, made)


def kind_of(model: ModelProto) -> int:
    """The type of the network's floats."""
    return int(model.graph.input[0].type.tensor_type.elem_type)


def own(model: ModelProto, number: Any) -> Tensor:
    """A constant in the type of the network's floats."""
    return np.asarray(number, helper.tensor_dtype_to_np_dtype(kind_of(model)))
