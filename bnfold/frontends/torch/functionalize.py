"""Make an exported graph say what it does: regions under no_grad in line, and who sees what works in place.

A training graph may hold operators such as ``relu_`` that overwrite what they read. Reading the new value under its own
name is the same program; where a view of the overwritten tensor is about, the values concerned are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import ExportGraphSignature

NO_GRAD = "wrap_with_set_grad_enabled"

FRESH = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear batch_norm instance_norm
    group_norm layer_norm rms_norm matmul max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d relu6 prelu selu softmax log_softmax embedding scaled_dot_product_attention
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d interpolate pixel_shuffle
    """.split()  # noqa: SIM905
)
"""Composed operators that surely make a new tensor; the others (dropout, type_as, einsum …) may return an alias."""

NORMALIZING = "batch_norm"
"""What the names of all operators that normalise by channel have in common."""


def functionalized(module: fx.GraphModule, signature: ExportGraphSignature | None = None) -> fx.GraphModule:
    """A copy of the graph with regions under ``no_grad`` that hold a BatchNorm in line: they have no gradients anyway.

    The names stay (fx renames a copy's nodes where Python knows the name, such as ``input``); where an output comes
    straight out of a region, ``signature`` gets its new name.
    """
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        made[node] = graph.node_copy(node, lambda used: made[used])
        made[node].name = node.name
    copied = fx.GraphModule(module, graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and getattr(node.target, "__name__", "") == NO_GRAD:
            region = node.args[1]
            inner = getattr(copied, str(region.target), None) if isinstance(region, fx.Node) else None
            if isinstance(inner, fx.GraphModule):
                inner = functionalized(inner)
                if any(NORMALIZING in str(part.target) for part in inner.graph.nodes):
                    _inline(copied, node, inner, signature)
    return copied


def _inline(
    module: fx.GraphModule, call: fx.Node, inner: fx.GraphModule, signature: ExportGraphSignature | None
) -> None:
    parameters = [part for part in inner.graph.nodes if part.op == "placeholder"]
    made: dict[fx.Node, Any] = dict(zip(parameters, call.args[2:], strict=True))
    results: Any = ()
    with module.graph.inserting_before(call):
        for part in inner.graph.nodes:
            if part.op == "get_attr":
                setattr(module, f"{call.name}_{part.target}", getattr(inner, str(part.target)))
                made[part] = module.graph.get_attr(f"{call.name}_{part.target}")
            elif part.op == "output":
                results = fx.map_arg(part.args[0], lambda used: made[used])
            elif part.op != "placeholder":
                made[part] = module.graph.node_copy(part, lambda used: made[used])
    for user in list(call.users):
        result = results[user.args[1]]
        user.replace_all_uses_with(result)
        if signature is not None:
            _rename_outputs(signature, user.name, result.name)
        module.graph.erase_node(user)
    region = call.args[1]
    module.graph.erase_node(call)
    if isinstance(region, fx.Node) and not region.users:
        module.graph.erase_node(region)
        delattr(module, str(region.target))


def mutated(module: fx.GraphModule, signature: ExportGraphSignature) -> set[fx.Node]:
    """The values whose tensors are overwritten while others may look at them.

    Without another consumer in between, later consumers of the old value get the new one: they did all along.
    """
    found: set[fx.Node] = set()
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in list(module.graph.nodes):
        for target in _overwritten(node):
            sharing = family(target)
            alone = (
                sharing == {target}
                and target not in found
                and target.op == "call_function"
                and node.args[:1] == (target,)
            )
            if alone and isinstance(node.meta.get("val"), torch.Tensor):
                later = [user for user in target.users if order[user] > order[node]]
                for user in later:
                    user.replace_input_with(target, node)
                if later:
                    _rename_outputs(signature, target.name, node.name)
            else:
                found |= sharing | {node}
    buffers = set(signature.buffers_to_mutate.values())
    names = {name for name, buffer in signature.inputs_to_buffers.items() if buffer in buffers}
    return found | {node for node in module.graph.nodes if node.op == "placeholder" and node.name in names}


def _overwritten(node: fx.Node) -> Iterator[fx.Node]:
    """The tensors that a call writes into."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for position, formal in enumerate(node.target._schema.arguments):
        if formal.alias_info is not None and formal.alias_info.is_write:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(formal.name)
            several = given if isinstance(given, list | tuple) else [given]
            yield from (used for used in several if isinstance(used, fx.Node))
    if node.target._schema.name in ("aten::batch_norm", "aten::instance_norm") and True in node.args[5:6]:
        yield from (used for used in node.args[3:5] if isinstance(used, fx.Node))  # running statistics, in training


def family(node: fx.Node) -> set[fx.Node]:
    """A value and all that may share its memory: what it is a view of, and what is a view of it."""
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found.add(current)
        if is_view(current):
            pending.extend(current.all_input_nodes[:1])
        pending.extend(user for user in current.users if is_view(user) and user.all_input_nodes[:1] == [current])
    return found


def is_view(node: fx.Node) -> bool:
    """Return True if the node's result may share the memory of its first input."""
    if node.op != "call_function":
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return isinstance(node.meta.get("val"), torch.Tensor)  # a part of a tuple, or a region: who knows
    schema = node.target._schema
    schema_name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    name = schema.name.removeprefix("aten::")
    written = any(formal.alias_info is not None and formal.alias_info.is_write for formal in schema.arguments)
    shares = any(result.alias_info is not None for result in schema.returns)
    if written:
        return False
    composed = torch._C._dispatch_has_kernel_for_dispatch_key(schema_name, "CompositeImplicitAutograd")
    return shares or (composed and name not in FRESH)


def _rename_outputs(signature: ExportGraphSignature, old: str, new: str) -> None:
    for spec in signature.output_specs:
        if getattr(spec.arg, "name", None) == old:
            spec.arg.name = new
