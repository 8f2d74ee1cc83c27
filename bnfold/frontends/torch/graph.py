"""The graph protocol over a torch ExportedProgram: operators in ONNX's terms, edits back into the fx graph.

:class:`TorchGraphs` works on a copy of the program's graph and signature; tensors are shared with the original and
never changed in place. Every value is an fx node, and keeps its name.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from bnfold.frontends.torch.aten.call import OnnxView, Operand
from bnfold.frontends.torch.aten.table import translate
from bnfold.frontends.torch.constants import Computed
from bnfold.frontends.torch.functionalize import functionalized, mutated
from bnfold.frontends.torch.tensors import np_dtype, to_numpy
from bnfold.ir.constant_folding import Constants
from bnfold.ir.graph import Graph, Node, Shape, Value

OPSET = 21
"""The ONNX operator set in whose terms operators are seen."""

HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
"""Inputs of the graph that the program itself provides."""


class Handle:
    """What an fx node needs to be edited: itself, and where its inputs come from."""

    def __init__(self, fx_node: fx.Node, view: OnnxView | None) -> None:
        self.fx_node, self.view = fx_node, view


class TorchGraphs:
    """The one scope of an exported program. ``program`` is left as it is; ``module`` is the copy that edits go to.

    Regions under ``no_grad`` that hold a BatchNorm become part of the graph around them.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.signature = copy.deepcopy(program.graph_signature)
        self.module = functionalized(program.graph_module, self.signature)
        self.state: dict[str, Tensor] = dict(program.state_dict)
        self.held: dict[str, Any] = dict(program.constants)
        self.mutated = mutated(self.module, self.signature)
        self.specs: dict[str, InputSpec] = {_name(spec.arg): spec for spec in self.signature.input_specs}
        self._separate()
        self.bodies: dict[Node, list[tuple[str, Graph]]] = {}
        self.fx_of: dict[Value, fx.Node] = {}
        self._values: dict[fx.Node, Value] = {}
        self._types = {node.name: type_of(node) for node in self.module.graph.nodes}
        self._nodes: dict[fx.Node, Node] = {}
        self._computed = Computed()
        self.graph = Graph("", self._type_of, Constants(), handle=self.module.graph)
        self.scopes = [self.graph]
        self.outputs_are_named = False
        for fx_node in self.module.graph.nodes:
            self._read(fx_node)
        self.graph.nodes = [node for node in self.graph.nodes if node.live_outputs]

    def tensor_of(self, spec: InputSpec) -> Tensor | None:
        """The tensor behind an input that the program provides itself."""
        found = self.state.get(spec.target or "", self.held.get(spec.target or ""))
        return found if isinstance(found, Tensor) else None

    def _separate(self) -> None:
        """Tensors that the program overwrites are its own: the copy must not share them with the original."""
        for spec in (self.specs[node.name] for node in self.mutated if node.name in self.specs):
            tensor = self.tensor_of(spec)
            if tensor is not None and spec.target is not None:
                own = tensor.detach().clone()
                owner = self.state if spec.target in self.state else self.held
                owner[spec.target] = torch.nn.Parameter(own) if isinstance(tensor, torch.nn.Parameter) else own

    def _type_of(self, name: str) -> tuple[np.dtype[Any] | None, Shape | None]:
        return self._types.get(name, (None, None))

    # --- reading

    def _read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "output":
            fx.map_arg(node.args, self._output)
        elif node.op == "get_attr":
            self._region(node)
        elif node not in self.mutated and self._computed.add(node):
            self._constant(node)
        elif node.target is operator.getitem and node.args[0] in self._nodes:
            self._part(node)
        else:
            self._call(node)

    def _output(self, used: fx.Node) -> fx.Node:
        self._values[used].is_output = True
        self.graph.outputs.append(self._values[used])
        return used

    def _region(self, node: fx.Node) -> None:
        """A graph inside the graph: known by its code."""
        inner = getattr(self.module, str(node.target), None)
        code = inner.print_readable(print_output=False) if isinstance(inner, fx.GraphModule) else repr(inner)
        made = Node("torch::region", node.name, OPSET, self.graph, [], [], {}, Handle(node, None), code)
        made.outputs.append(self._value(node, made))
        self._nodes[node] = made
        self.graph.nodes.append(made)

    def _value(self, node: fx.Node, producer: Node | None = None) -> Value:
        value = self._values[node] = Value(node.name, self.graph, producer=producer)
        self.fx_of[value] = node
        value.captured = node in self.mutated
        return value

    def _placeholder(self, node: fx.Node) -> None:
        spec, value = self.specs.get(node.name), self._value(node)
        tensor = None if spec is None or spec.kind not in HELD else self.tensor_of(spec)
        if tensor is None or node in self.mutated:
            value.is_input = True
            self.graph.inputs.append(value)
            return
        self._computed.hold(node, tensor)
        self._constant(node, value)

    def _constant(self, node: fx.Node, value: Value | None = None) -> None:
        """A stored tensor, or one that is computed from such; the type is that in which the program holds it."""
        value = value or self._value(node)
        value.tensor = lambda: to_numpy(self._computed.value(node))
        dtype, shape = self._types[node.name]
        value.tensor_type = (dtype, tuple(n for n in shape or () if isinstance(n, int)))

    def _call(self, node: fx.Node) -> None:
        view = translate(node) if isinstance(node.target, torch._ops.OpOverload) else None
        if view is not None and view.op != "Cast" and not self._one_type(node, view):
            view = None
        if node in self.mutated and view is not None and view.op != "BatchNormalization" and not self._is_copy(node):
            view = None  # what it makes is overwritten: no constant, and no transform
        op = f"torch::{node.target}" if view is None else view.op
        attrs = {} if view is None else dict(view.attrs)
        name, handle = module_path(node) or node.name, Handle(node, view)
        made = Node(
            op, name, OPSET, self.graph, [], [], attrs, handle, _settings(node, view), view is None and draws(node)
        )
        for value in self._inputs(node, view):
            made.inputs.append(value)
            if value is not None:
                value.consumers.append(made)
        self._nodes[node] = made
        self.graph.nodes.append(made)
        several = isinstance(node.meta.get("val"), tuple | list)
        if several:
            self._values[node] = Value(node.name, self.graph, producer=made, captured=not _only_parts(node))
            made.outputs = [None] * len(node.meta["val"])
        else:
            made.outputs.append(self._value(node, made))

    def _is_copy(self, node: fx.Node) -> bool:
        """Return True for a copy of a computed value: a tensor of its own, which begins as that value."""
        if node.target is not torch.ops.aten.clone.default:
            return False
        source = node.args[0]
        return isinstance(source, fx.Node) and not self.graph.constants.is_constant(self._values[source])

    def _part(self, node: fx.Node) -> None:
        """One of the results of a node that makes several; the same one may be asked for twice."""
        whole, index = self._nodes[node.args[0]], node.args[1]  # type: ignore[index]
        assert isinstance(index, int)
        if not node.users:
            return
        known = whole.outputs[index]
        if known is None:
            whole.outputs[index] = self._value(node, whole)
        else:
            self._values[node] = known

    def _inputs(self, node: fx.Node, view: OnnxView | None) -> Iterator[Value | None]:
        if view is None:
            yield from (self._values[used] for used in node.all_input_nodes)
            return
        passed = set()
        for operand in view.inputs:
            if isinstance(operand, Operand):
                found = argument(node, operand)
                passed.add(found)
                yield self._operand(node, operand, found)
            else:
                yield None if operand is None else self._fixed(node, operand)
        passed |= {argument(node, Operand(name)) for name in view.shapes}
        others = [used for used in node.all_input_nodes if used not in passed]
        for used in others:  # sizes that are computed on the way
            self._values[used].captured |= used.meta.get("val") is not None and isinstance(used.meta["val"], Tensor)

    def _operand(self, node: fx.Node, operand: Operand, found: Any) -> Value | None:
        if isinstance(found, fx.Node):
            value = self._values[found]
            if operand.shape is None or value.tensor is None:
                return value
            read, shape = value.tensor, operand.shape
            return self._fixed(node, lambda: read().reshape(shape), (value.tensor_type or (None, ()))[0], shape)
        if isinstance(found, int | float):
            dtype = _float_type(node)
            counts = dtype is not None and dtype.kind in "iu"
            wide = dtype if counts or dtype == np.float64 else np.dtype(np.float32)  # as torch computes with it
            return self._fixed(node, np.asarray(found).astype(wide), dtype)
        return None if operand.default is None else self._fixed(node, operand.default(), _float_type(node))

    def _fixed(
        self,
        node: fx.Node,
        data: NDArray[Any] | Callable[[], NDArray[Any]],
        dtype: np.dtype[Any] | None = None,
        shape: tuple[int, ...] = (),
    ) -> Value:
        """A constant that no fx node holds: a number in the call, or what an absent argument means."""
        value = Value(f"{node.name} constant", self.graph)
        if isinstance(data, np.ndarray):
            value.tensor, shape = (lambda: data), data.shape
            dtype = dtype or data.dtype
        else:
            value.tensor = data
        value.tensor_type = (dtype, shape)
        return value

    def _one_type(self, node: fx.Node, view: OnnxView) -> bool:
        """False where the call mixes types, which ONNX's operators don't; a BatchNorm's parameters may be wider."""
        after = node.meta.get("val")
        if not isinstance(after, Tensor) or view.op in ("BatchNormalization", "Shape", "Gather", "Attention"):
            return True
        chooses = view.op in ("Where", "GatherElements", "ScatterElements")  # by truths and integers
        found = [argument(node, operand) for operand in view.inputs if isinstance(operand, Operand)]
        held = [used.meta.get("val") for used in found if isinstance(used, fx.Node)]
        tensors = [t for t in held if isinstance(t, Tensor) and t.dim() and (t.is_floating_point() or not chooses)]
        return all(t.dtype == after.dtype for t in tensors)


def argument(node: fx.Node, operand: Operand) -> Any:
    """Return what a call passes for an operand: an fx node, a number, None."""
    found = None
    for position, formal in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if formal.name == operand.name:
            default = formal.default_value if formal.has_default_value() else None
            found = node.args[position] if position < len(node.args) else node.kwargs.get(operand.name, default)
    return found if operand.index is None else found[operand.index]  # type: ignore[index]


def module_path(node: fx.Node) -> str:
    """The path of the torch.nn layer that a node belongs to, as the network's own code calls it; else empty."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    inner = kind.startswith("torch.nn.modules.") and not kind.startswith("torch.nn.modules.container")
    return str(path) if inner else ""


CHANCES = {"train": False, "training": False, "p": 0.0, "dropout_p": 0.0, "dropout": 0.0}
"""Arguments of torch's random operators with which they draw nothing: some of them are dropouts that may be off."""


def draws(node: fx.Node) -> bool:
    """Return True for a call that draws random numbers; the tag is on dropouts that are off, too."""
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    for position, formal in enumerate(node.target._schema.arguments):
        if formal.name in CHANCES:
            default = formal.default_value if formal.has_default_value() else None
            passed = node.args[position] if position < len(node.args) else node.kwargs.get(formal.name, default)
            if passed == CHANCES[formal.name]:
                return False
    return True


def _settings(node: fx.Node, view: OnnxView | None) -> tuple[Any, ...]:
    """All arguments of a call besides its tensors and what a fold may set: what distinguishes calls of one operator."""
    given = set() if view is None else {operand.name for operand in view.inputs if isinstance(operand, Operand)}
    given |= set() if view is None else set(view.arguments.values())
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return (repr(fx.map_arg((node.args, node.kwargs), _size)),)
    found = []
    for position, formal in enumerate(target._schema.arguments):
        value = node.args[position] if position < len(node.args) else node.kwargs.get(formal.name)
        default = formal.default_value if formal.has_default_value() else None
        if formal.name not in given and value is not None and value != default:
            found.append((formal.name, repr(fx.map_arg(value, _size))))
    if view is not None and view.shapes:
        found.append(("shape", repr(type_of(node)[1])))
    return (target._schema.name.removesuffix("_"), *found)


def _size(node: fx.Node) -> str:
    """A computed size as its formula; a tensor as a place."""
    held = node.meta.get("val")
    return "tensor" if held is None or isinstance(held, Tensor | tuple | list) else f"size {held}"


def type_of(node: fx.Node) -> tuple[np.dtype[Any] | None, Shape | None]:
    """Element type and shape of what a node makes: dimensions are numbers or symbols."""
    held = node.meta.get("val")
    if not isinstance(held, Tensor):
        return None, None
    return np_dtype(held.dtype), tuple(int(n) if isinstance(n, int) else str(n) for n in held.shape)


def _float_type(node: fx.Node) -> np.dtype[Any] | None:
    held = node.meta.get("val")
    held = held[0] if isinstance(held, tuple | list) and held else held
    return np_dtype(held.dtype) if isinstance(held, Tensor) else None


def _only_parts(node: fx.Node) -> bool:
    return all(user.target is operator.getitem for user in node.users)


def _name(argument_: Any) -> str:
    return str(getattr(argument_, "name", ""))
