"""Run a program's graph in eager torch, whole or in part, as it is or in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from bnfold.frontends.torch.functionalize import NO_GRAD, family, functionalized

Observer = Callable[[str, Tensor], None]

Amendment = Callable[[fx.Node, tuple[Any, ...], Any], Any]
"""Takes a node that calls an operator, its positional arguments and what it has made; returns what is to replace it."""


class NotRunnable(Exception):
    """The program can't be run in this way; the message says why."""


class Evaluator:
    """One program on one device; ``wide`` promotes every float to float64, also where the program names a type.

    Neither guards nor code of the program are run, only the operators of its graph, one by one.
    """

    def __init__(self, program: ExportedProgram, device: str = "cpu", *, wide: bool = False) -> None:
        signature = copy.deepcopy(program.graph_signature)
        self._module, self._device, self._wide = (
            functionalized(program.graph_module, signature),
            torch.device(device),
            wide,
        )
        self.overwrites = any(_writes(node) for node in self._module.graph.nodes)
        self.inputs = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
        self.outputs = [str(name) for name in signature.user_outputs]
        held = {**program.state_dict, **program.constants}
        self._held = {spec.arg.name: held[spec.target] for spec in signature.input_specs if spec.target in held}

    def run(
        self,
        bound: Mapping[str, Tensor],
        wanted: Iterable[str] | None = None,
        observe: Observer | None = None,
        reads: Mapping[str, str] | None = None,
        amend: Amendment | None = None,
    ) -> dict[str, Tensor]:
        """Return the values ``wanted`` (by default the outputs) by name, from those ``bound``. Raises NotRunnable.

        ``observe`` gets every tensor that is made on the way. A whole run returns its outputs as they are in the end, a
        part as they are made. ``reads`` names nodes, each with a value that it reads: these are returned as they are
        when the node runs, for they may have been overwritten since they were made. ``amend`` replaces what operators
        make.
        """
        names = list(self.outputs if wanted is None else wanted)
        with torch.no_grad():
            return self._run(self._module, bound, names, observe, whole=wanted is None, reads=reads or {}, amend=amend)

    def _run(
        self,
        module: fx.GraphModule,
        bound: Mapping[str, Tensor],
        wanted: list[str],
        observe: Observer | None,
        *,
        whole: bool,
        reads: Mapping[str, str] | None = None,
        amend: Amendment | None = None,
    ) -> dict[str, Tensor]:
        nodes = {node.name: node for node in module.graph.nodes}
        reads = reads or {}
        needed = _needed([nodes[name] for name in (*wanted, *reads)], bound)
        last = {used: node for node in module.graph.nodes if node in needed for used in node.all_input_nodes}
        known: dict[fx.Node, Any] = {}
        made: dict[str, Tensor] = {}
        for node in module.graph.nodes:
            if node not in needed:
                continue
            if node.name in reads:
                made[reads[node.name]] = known[nodes[reads[node.name]]].clone()
            value = self._value(module, node, bound, known, amend)
            known[node] = value
            if observe is not None and isinstance(value, Tensor) and node.op != "get_attr":
                observe(node.name, value)
            if node.name in wanted:
                tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
                made[node.name] = tensor if whole else tensor.clone()  # as it is before it is overwritten
            for used in node.all_input_nodes:
                if last.get(used) is node:
                    known.pop(used, None)
        return made

    def _value(
        self,
        module: fx.GraphModule,
        node: fx.Node,
        bound: Mapping[str, Tensor],
        known: dict[fx.Node, Any],
        amend: Amendment | None,
    ) -> Any:
        if node.name in bound:
            return self._ready(bound[node.name]).clone()
        if node.op == "placeholder":
            if node.name not in self._held:
                raise NotRunnable(f"nothing is given for the input {node.name!r}")
            return self._own(self._ready(self._held[node.name]))
        if node.op == "get_attr":
            return getattr(module, str(node.target))
        args: Any
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda used: known[used])
        target: Any = node.target
        if getattr(target, "__name__", "") == NO_GRAD:
            return self._region(args[1], args[2:], amend)
        if self._wide:
            if "autocast" in str(target):
                raise NotRunnable("a region under autocast has no float64 counterpart")
            args, kwargs = _widened(args), _widened(kwargs)
        args, kwargs = self._placed(args), self._placed(kwargs)
        try:
            made = target(*args, **kwargs)
        except Exception as error:  # an operator may raise any exception
            raise NotRunnable(f"{node.name}: {' '.join(str(error).split())[:200]}") from error
        return made if amend is None else amend(node, args, made)

    def _region(self, module: fx.GraphModule, args: Iterable[Any], amend: Amendment | None) -> list[Any]:
        """Run a graph inside the graph; return its results in order."""
        (output,) = (node for node in module.graph.nodes if node.op == "output")
        parameters = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        names = [node.name for node in output.args[0]]
        found = self._run(module, dict(zip(parameters, args, strict=True)), names, None, whole=True, amend=amend)
        return [found[name] for name in names]

    def _ready(self, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        tensor = tensor.detach().to(self._device)
        return tensor.double() if self._wide and tensor.is_floating_point() else tensor

    def _own(self, tensor: Any) -> Any:
        """Return a copy where an operator that works in place could overwrite the program's own tensor."""
        return tensor.clone() if self.overwrites and isinstance(tensor, Tensor) else tensor

    def _placed(self, value: Any) -> Any:
        """Replace devices that the program names by the one that it runs on."""
        return fx.node.map_aggregate(value, lambda part: self._device if isinstance(part, torch.device) else part)


def _needed(wanted: Iterable[fx.Node], bound: Mapping[str, Tensor]) -> set[fx.Node]:
    """Return the nodes that have to be run, ends included, and those that overwrite a needed value."""
    needed: set[fx.Node] = set()
    pending = list(wanted)
    while pending:
        node = pending.pop()
        if node in needed:
            continue
        needed.add(node)
        if node.name not in bound:
            pending.extend(node.all_input_nodes)
        pending.extend(user for member in family(node) for user in member.users if _writes(user))
    return needed


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _widened(value: Any) -> Any:
    """Replace float types that the program names by float64."""

    def wide(part: Any) -> Any:
        return torch.float64 if isinstance(part, torch.dtype) and part.is_floating_point else part

    return fx.node.map_aggregate(value, wide)
