"""What an fx call is, as an edit needs to know it: its operands, who else reads them, whether it trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import fx
from torch.export import ModuleCallEntry
from torch.export.graph_signature import InputSpec

from bnfold.frontends.torch.aten.call import Operand
from bnfold.frontends.torch.graph import argument


def copied(call: ModuleCallEntry) -> ModuleCallEntry:
    """An entry whose ends can be renamed; how they are nested stays shared."""
    if call.signature is None:
        return call
    inputs, outputs = ([copy.copy(end) for end in ends] for ends in (call.signature.inputs, call.signature.outputs))
    return replace(call, signature=replace(call.signature, inputs=inputs, outputs=outputs))


def uses(node: fx.Node) -> int:
    """How often a value is passed: one call may read it for several of its operands."""
    found = []
    for user in node.users:
        fx.map_arg((user.args, user.kwargs), lambda used: found.append(used is node))
    return sum(found)


def takes_tensor(node: fx.Node, operand: Operand) -> bool:
    """Return True if a call may pass a tensor for the operand, and not a number alone."""
    target: Any = node.target
    formal = next(formal for formal in target._schema.arguments if formal.name == operand.name)
    return "Tensor" in str(formal.type)


WHERE: dict[tuple[bool, ...], str] = {
    (True, True): "self",
    (True, False): "ScalarOther",
    (False, True): "ScalarSelf",
    (False, False): "Scalar",
}
"""The overload of ``where`` by which of its two values are tensors."""


def overload_for(node: fx.Node) -> Any:
    """Return the overload of a call's operator that takes the numbers and tensors that it passes."""
    target: Any = node.target
    if str(target).startswith("aten.where."):
        tensors = tuple(isinstance(argument(node, Operand(name)), fx.Node) for name in ("self", "other"))
        return getattr(target.overloadpacket, WHERE[tensors])
    return target.overloadpacket.Tensor if str(target).endswith(".Scalar") else target


def freezable(node: fx.Node) -> bool:
    """Return True for a BatchNorm in training mode whose running statistics could be used instead."""
    schema: Any = getattr(node.target, "_schema", None)
    formal = set() if schema is None else {entry.name for entry in schema.arguments}
    held = [argument(node, Operand(name)) for name in ("running_mean", "running_var") if name in formal]
    return "training" in formal and "functional" not in schema.name and len(held) == 2 and None not in held


def counts(node: fx.Node, path: str, specs: Mapping[str, InputSpec]) -> bool:
    """Return True for what adds to the number of batches that the layer at ``path`` has seen."""
    if node.op != "call_function" or not node.args or node.users or not isinstance(node.args[0], fx.Node):
        return False
    spec = specs.get(node.args[0].name)
    return spec is not None and spec.target == f"{path}.num_batches_tracked"
