"""Write a plan's edits into an exported program: the :class:`bnfold.ir.graph.Editor` of :class:`TorchGraphs`.

The result is a valid program: graph, signature and tensors change together. A weight that no other node reads keeps its
name in the state_dict; what only a removed BatchNorm owned goes with it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from bnfold.frontends.torch.aten.call import Operand
from bnfold.frontends.torch.calls import copied, counts, freezable, overload_for, takes_tensor, uses
from bnfold.frontends.torch.functionalize import is_view
from bnfold.frontends.torch.graph import HELD, TorchGraphs, argument, module_path
from bnfold.frontends.torch.load import quiet
from bnfold.frontends.torch.tensors import from_numpy
from bnfold.ir.graph import Node, Value
from bnfold.numerics.linear import Scaled

SUFFIX = "_bnfold"

RESIDUAL_OPS: dict[str, Any] = {"Add": torch.ops.aten.add.Tensor, "Max": torch.ops.aten.maximum.default}


class TorchEditor:
    """Call :meth:`finish` once, after the last edit; ``program`` is then the new one."""

    def __init__(self, graphs: TorchGraphs) -> None:
        self._graphs = graphs
        self._graph: fx.Graph = graphs.module.graph
        self._aliases: dict[Value, Value] = {}
        self._unread: list[fx.Node] = []
        self._erased: set[fx.Node] = set()
        self._removed_paths: list[str] = []
        self.program = graphs.program
        self._calls = [copied(call) for call in graphs.program.module_call_graph]
        self._targets = {spec.target for spec in graphs.signature.input_specs if spec.target}
        fakes = (node.meta.get("val") for node in self._graph.nodes)
        self._fake_mode: Any = next((fake.fake_mode for fake in fakes if hasattr(fake, "fake_mode")), None)

    def set_constant(self, node: Node, index: int, data: NDArray[Any] | Scaled) -> None:
        """Let ``node`` read new data at ``index``: a number in the call, or a tensor."""
        data = data.array() if isinstance(data, Scaled) else data
        handle = node.handle
        operand, fx_node = handle.view.inputs[index], handle.fx_node
        if not isinstance(operand, Operand):
            self._relu6_as_hardtanh(node)
            operand = node.handle.view.inputs[index]
        old = argument(fx_node, operand)
        if data.size == 1 and (isinstance(old, int | float) or not takes_tensor(fx_node, operand)):
            self._pass(fx_node, operand, float(data.reshape(())))
            return
        tensor = from_numpy(data if operand.shape is None else data.reshape(-1))
        spec = self._graphs.specs.get(old.name) if isinstance(old, fx.Node) else None
        if isinstance(old, fx.Node) and spec is not None and self._owned(old, spec, tensor):
            self._replace_data(old, spec, tensor)
            return
        stem = self._stem(fx_node, operand, old, spec)
        self._pass(fx_node, operand, self._add_parameter(stem, tensor))
        if isinstance(old, fx.Node):
            self._unread.append(old)
        fx_node.target = overload_for(fx_node)

    def overwrite(self, node: Node, index: int, data: NDArray[Any]) -> None:
        """The same: a tensor that no other node reads keeps its name."""
        self.set_constant(node, index, data)

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of ``node``."""
        self._pass(node.handle.fx_node, Operand(node.handle.view.arguments[name]), value)

    def freeze(self, node: Node) -> bool:
        """Let a BatchNorm in training mode normalise by its running statistics, and count its batches no more."""
        fx_node = node.handle.fx_node
        if not freezable(fx_node):
            return False
        self._pass(fx_node, Operand("training"), False)
        path = module_path(fx_node)
        for counter in [other for other in self._graph.nodes if counts(other, path, self._graphs.specs)]:
            self._erase(counter)
        return True

    def remove(self, nodes: list[Node], source: Value, target: Value) -> None:
        """Delete ``nodes``: who read ``target`` reads ``source``.

        A copy stays where the target is an output of an input, or where an operator works in place on either.
        """
        old, new = self._fx(target), self._fx(source)
        in_place = old in self._graphs.mutated or new in self._graphs.mutated
        if in_place or (new.op == "placeholder" and target.is_output):
            self._replace_by(nodes, new, torch.ops.aten.clone.default, (new,))
        else:
            old.replace_all_uses_with(new)
            self._rename_outputs(old, new)
            self._forget(nodes, old)
        self._aliases[target] = source

    def replace(self, op: str, nodes: list[Node], source: Value, data: NDArray[Any]) -> None:
        """Put one ``op(source, data)`` in the place of ``nodes``."""
        last = nodes[-1].handle.fx_node
        constant = self._add_parameter(f"{last.name}_{op.lower()}", from_numpy(data))
        self._replace_by(nodes, self._fx(source), RESIDUAL_OPS[op], (self._fx(source), constant))

    def mark_changed(self, value: Value) -> None:
        """Do nothing: a program has no annotations of its tensors."""

    def finish(self) -> None:
        """Drop what the edits leave without a consumer, and make the new program, which torch validates."""
        with quiet():
            self._finish()

    def _finish(self) -> None:
        self._drop_unread()
        for node in self._graph.nodes:
            self._keep_inputs_whole(node)
        graphs, program = self._graphs, self._graphs.program
        self._graph.lint()
        graphs.module.recompile()
        calls = [entry for entry in self._calls if entry.fqn not in self._lost_modules()]
        self.program = ExportedProgram(
            root=graphs.module,
            graph=self._graph,
            graph_signature=graphs.signature,
            state_dict=graphs.state,
            range_constraints=dict(program.range_constraints),
            module_call_graph=calls,
            example_inputs=program.example_inputs,
            constants=graphs.held,
            verifiers=list(program.verifiers),
        )
        self.program._guards_code = list(getattr(program, "_guards_code", ()))

    # --- the graph

    def _fx(self, value: Value) -> fx.Node:
        while value in self._aliases:
            value = self._aliases[value]
        return self._graphs.fx_of[value]

    def _pass(self, node: fx.Node, operand: Operand, value: Any) -> None:
        """Let a call pass ``value`` for an operand."""
        place = next(i for i, a in enumerate(node.target._schema.arguments) if a.name == operand.name)  # type: ignore[union-attr]
        if operand.index is not None:
            entries = list(node.args[place] if place < len(node.args) else node.kwargs[operand.name])  # type: ignore[arg-type]
            entries[operand.index] = value
            value = entries
        if place < len(node.args):
            node.update_arg(place, value)
        else:
            node.update_kwarg(operand.name, value)

    def _relu6_as_hardtanh(self, node: Node) -> None:
        """Relu6 has its bounds in its name: let it be a clamp."""
        fx_node = node.handle.fx_node
        fx_node.target = torch.ops.aten.hardtanh.default
        fx_node.args = (fx_node.args[0], 0.0, 6.0)
        node.handle.view = type(node.handle.view)("Clip", [Operand("self"), Operand("min_val"), Operand("max_val")])

    def _replace_by(self, nodes: list[Node], source: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
        """Let the result of ``nodes`` come from one new call."""
        last = nodes[-1]
        old = self._fx(last.output)
        with self._graph.inserting_before(last.handle.fx_node):
            made = self._graph.call_function(target, args)
        made.meta = {**last.handle.fx_node.meta, "val": old.meta["val"]}
        old.replace_all_uses_with(made)
        self._rename_outputs(old, made)
        self._forget(nodes, old)
        self._graphs.fx_of[last.output] = made
        if old in self._graphs.mutated:
            self._graphs.mutated.add(made)

    def _forget(self, nodes: list[Node], last: fx.Node) -> None:
        """What the removed ``nodes`` made and read is no longer wanted on their account."""
        self._removed_paths += [path for node in nodes if (path := node.name) != node.handle.fx_node.name]
        for node in nodes:
            self._erase_unread_parts(node.handle.fx_node)
        self._unread += [last, *(node.handle.fx_node for node in nodes)]

    def _erase_unread_parts(self, node: fx.Node) -> None:
        """A call of several results has a node for each, which would keep it alive."""
        for user in [user for user in node.users if not user.users and user.target is operator.getitem]:
            self._erase(user)

    def _rename_outputs(self, old: fx.Node, new: fx.Node) -> None:
        """Let the signatures, of the program and of the modules whose calls it preserves, name what is there now."""
        ends = [spec.arg for spec in self._graphs.signature.output_specs]
        for call in self._calls:
            if call.signature is not None:
                ends += [*call.signature.inputs, *call.signature.outputs]
        for end in ends:
            if getattr(end, "name", None) == old.name:
                end.name = new.name

    def _keep_inputs_whole(self, node: fx.Node) -> None:
        """An operator that works in place must not do so on a tensor that it did not read before."""
        target = node.target
        if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
            return
        source = node.args[0] if node.args else None
        if node in self._graphs.mutated or not isinstance(source, fx.Node):
            return
        if len(source.users) == 1 and source.op == "call_function" and not is_view(source):
            return
        plain = getattr(torch.ops.aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
        node.target = getattr(plain, target._overloadname)

    # --- tensors

    def _owned(self, old: fx.Node, spec: InputSpec, tensor: Tensor) -> bool:
        """Return True if one call alone reads the tensor, under no other name, so that its data may be replaced."""
        held = self._graphs.tensor_of(spec)
        if held is None or uses(old) != 1 or spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER):
            return False
        if old in self._graphs.mutated:
            return False
        names = [name for name, other in self._graphs.program.state_dict.items() if other is held]
        return len(names) == 1 and held.dtype == tensor.dtype

    def _replace_data(self, old: fx.Node, spec: InputSpec, tensor: Tensor) -> None:
        assert spec.target is not None
        held = self._graphs.state[spec.target]
        tensor = tensor.to(held.device)
        is_parameter = isinstance(held, torch.nn.Parameter)
        self._graphs.state[spec.target] = (
            torch.nn.Parameter(tensor, requires_grad=held.requires_grad) if is_parameter else tensor
        )
        old.meta["val"] = self._fake(self._graphs.state[spec.target])

    def _stem(self, node: fx.Node, operand: Operand, old: Any, spec: InputSpec | None) -> str:
        """Return what to call a new tensor: a bias stands beside its weight."""
        if spec is not None and spec.target:
            return f"{spec.target}{SUFFIX}"
        beside = argument(node, Operand("weight")) if operand.name == "bias" else None
        spec = self._graphs.specs.get(beside.name) if isinstance(beside, fx.Node) else None
        if spec is not None and spec.target and spec.target.endswith("weight"):
            return f"{spec.target.removesuffix('weight')}bias"
        return f"{node.name}_{operand.name}{SUFFIX}"

    def _add_parameter(self, stem: str, tensor: Tensor) -> fx.Node:
        """A placeholder before all others, with its spec and its tensor."""
        target, count = stem, 1
        while target in self._targets or target in self._graphs.state:
            count += 1
            target = f"{stem}{count}"
        self._targets.add(target)
        first = next(iter(self._graph.nodes))
        device = next((t.device for t in self._graphs.state.values()), torch.device("cpu"))
        parameter = torch.nn.Parameter(tensor.to(device), requires_grad=False)
        with self._graph.inserting_before(first):
            node = self._graph.placeholder("p_" + target.replace(".", "_"))
        node.meta["val"] = self._fake(parameter)
        self._graphs.state[target] = parameter
        spec = InputSpec(InputKind.PARAMETER, TensorArgument(node.name), target)
        self._graphs.signature.input_specs.insert(0, spec)
        self._graphs.specs[node.name] = spec
        return node

    def _fake(self, tensor: Tensor) -> Any:
        return tensor if self._fake_mode is None else self._fake_mode.from_tensor(tensor, static_shapes=True)

    # --- the end

    def _drop_unread(self) -> None:
        """Erase calls that became unread, then the tensors that only they read."""
        while self._unread:
            node = self._unread.pop()
            if node in self._erased:
                continue
            self._erase_unread_parts(node)
            if node.users:
                continue
            if node.op == "call_function":
                self._unread += node.all_input_nodes
                self._erase(node)
            elif node.op == "placeholder":
                self._drop_tensor(node)
        for module in self._lost_modules():
            for name, spec in list(self._graphs.specs.items()):
                counter = spec.target == f"{module}.num_batches_tracked"
                held = next((n for n in self._graph.nodes if n.name == name), None) if counter else None
                if held is not None and not held.users:
                    self._drop_tensor(held)

    def _erase(self, node: fx.Node) -> None:
        self._graph.erase_node(node)
        self._erased.add(node)

    def _drop_tensor(self, node: fx.Node) -> None:
        spec = self._graphs.specs.get(node.name)
        if spec is None or spec.kind not in HELD:
            return
        self._graphs.signature.input_specs.remove(spec)
        del self._graphs.specs[node.name]
        self._erase(node)
        if not any(other.target == spec.target for other in self._graphs.signature.input_specs):
            self._graphs.state.pop(spec.target or "", None)
            self._graphs.held.pop(spec.target or "", None)

    def _lost_modules(self) -> set[str]:
        """The paths of layers of which no call is left."""
        left = {module_path(node) for node in self._graph.nodes}
        return {path for path in self._removed_paths if path not in left}
