"""Operators that onnxruntime's optimizer makes of several plain ones, and plain ones that it takes apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Numbers
from bnfold.verification.equivalence.semantics.activations import clip_state, leaky_relu_state
from bnfold.verification.equivalence.semantics.contraction import matrix_product
from bnfold.verification.equivalence.semantics.labelled_product import labelled_product
from bnfold.verification.equivalence.semantics.layer_norms import layer_norm_state
from bnfold.verification.equivalence.semantics.linear import conv, gemm, matmul
from bnfold.verification.equivalence.semantics.opaque import elementwise_state, opaque_key
from bnfold.verification.equivalence.semantics.operands import floats
from bnfold.verification.equivalence.semantics.sums import product_of, total_of
from bnfold.verification.equivalence.semantics.views import turned_state

SIXTH = float(np.float32(1 / 6))
"""The slope of HardSwish's HardSigmoid, as it is stored."""


def fused(interpreter: Interpreter, node: Node) -> bool:
    """Onnxruntime's own FusedConv and FusedGemm: the operator, perhaps a sum, an activation."""
    plain = Node(
        node.op.removeprefix("com.microsoft::Fused"), node.name, 13, node.graph, node.inputs[:3], node.outputs, {}
    )
    if (weight := _without_filling(interpreter, node)) is not None:
        plain.inputs = [node.inputs[0], weight, *node.inputs[2:3]]
    plain.attrs.update({name: value for name, value in node.attrs.items() if not name.startswith("activation")})
    if not (conv if plain.op == "Conv" else gemm)(interpreter, plain):
        return False
    interpreter.layers[node] = interpreter.layers.pop(plain)
    state = interpreter.states[node.output]
    if (other := node.input(3)) is not None:
        weight = node.inputs[1]
        rank = None if weight is None else weight.rank
        state = total_of(
            interpreter, node, [(state, 1.0, node.output), (interpreter.state_of(other), 1.0, other)], rank
        )
    kind = node.attr("activation", "")
    params = list(node.attr("activation_params", ()))
    if kind in ("Relu", "Clip"):
        low, high = params if kind == "Clip" else (0.0, np.inf)
        state = clip_state(interpreter, node, state, np.asarray(low, np.float64), np.asarray(high, np.float64))
    elif kind == "LeakyRelu":
        state = leaky_relu_state(interpreter, node, state, np.asarray(params[0] if params else 0.01, np.float64))
    elif kind:
        state = activated(interpreter, node, kind, state, dict(_named(kind, params)))
    interpreter.states[node.output] = state
    return True


def _without_filling(interpreter: Interpreter, node: Node) -> Value | None:
    """Return the weight without zeros for channels that the input does not have: they fill a block; None for others."""
    source, weight = node.inputs[:2]
    shape = None if source is None else interpreter.shape(source)
    stored = floats(node, 1)
    if weight is None or not shape or len(shape) < 3 or stored is None or node.attr("group", 1) != 1:
        return None
    inner = shape[1]
    if not isinstance(inner, int) or inner >= stored[1]:
        return None
    data = constant(node, 1)
    if data[:, inner:].any():
        return None
    kept = data[:, :inner]
    found = Value(weight.name, weight.graph, tensor_type=(data.dtype, kept.shape))
    found.tensor = lambda: kept
    return found


def _named(kind: str, params: list[float]) -> Iterator[tuple[str, float]]:
    """The parameters of an activation, in the order in which onnxruntime lists them."""
    names = ("alpha", "beta") if kind == "HardSigmoid" else ("alpha",)
    return zip(names, params, strict=False)


def activated(
    interpreter: Interpreter, node: Node, kind: str, state: AbstractValue, attrs: Mapping[str, Any]
) -> AbstractValue:
    """Return what an activation makes of ``state`` in the place of ``node``; products of two are read as products."""
    rank = node.output.rank
    if kind in GATES:
        inner = state
        for op, defaults in GATES[kind]:
            if op == "Mul":
                factor = attrs.get("alpha", defaults["alpha"])
                inner = inner.transformed(Affine.of(factor, 0.0), np.zeros(()), interpreter.eps(node.output))
            else:
                inner = activated(interpreter, node, op, inner, defaults)
        return product_of(interpreter, node, "Mul", [(state, rank), (inner, rank)])
    alone = Node(kind, node.name, node.opset, node.graph, [node.output], node.outputs, dict(attrs))
    return elementwise_state(interpreter, alone, state)


GATES: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "HardSwish": [("HardSigmoid", {"alpha": SIXTH, "beta": 0.5})],
    "Swish": [("Mul", {"alpha": 1.0}), ("Sigmoid", {})],
    "QuickGelu": [("Mul", {"alpha": float(np.float32(1.702))}), ("Sigmoid", {})],
    "Mish": [("Softplus", {}), ("Tanh", {})],
}
"""Activations ``x f(x)``, by the operators that ``f`` is made of; ``Mul`` multiplies by the activation's ``alpha``."""


def gate(interpreter: Interpreter, node: Node) -> bool:
    """HardSwish, Swish, QuickGelu, Mish: ``x`` times an activation of ``x``."""
    kind = node.op.removeprefix("com.microsoft::")
    interpreter.states[node.output] = activated(
        interpreter, node, kind, interpreter.state_of(node.inputs[0]), node.attrs
    )
    return True


def fused_matmul(interpreter: Interpreter, node: Node) -> bool:
    """``alpha A B`` of two computed values, either of which may be transposed in its last two axes."""
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        return False
    if len(node.inputs) != 2:
        return False
    if any(map(node.graph.constants.is_constant, node.inputs)):
        return _matmul_with_constant(interpreter, node)
    sides = []
    for value, transposed in zip(node.inputs, (node.attr("transA", 0), node.attr("transB", 0)), strict=True):
        state, shape = interpreter.state_of(value), None if value is None else interpreter.shape(value)
        if transposed:
            if shape is None or len(shape) < 2:
                return False
            perm = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            state, shape = turned_state(interpreter, node, state, perm), tuple(shape[axis] for axis in perm)
        sides.append((state, shape))
    interpreter.states[node.output] = matrix_product(interpreter, node, sides, node.attr("alpha", 1.0))
    return True


def _matmul_with_constant(interpreter: Interpreter, node: Node) -> bool:
    """``alpha A B`` where one matrix is constant."""
    transposes = {name: node.attr(name, 0) for name in ("transA", "transB") if node.attr(name, 0)}
    plain = Node("MatMul", node.name, 13, node.graph, node.inputs, node.outputs, transposes)
    if not (labelled_product if transposes else matmul)(interpreter, plain):
        return False
    if plain in interpreter.layers:
        interpreter.layers[node] = interpreter.layers.pop(plain)
    alpha, eps = Affine.of(node.attr("alpha", 1.0), 0.0), interpreter.eps(node.output)
    made = interpreter.states[node.output]
    interpreter.states[node.output] = made.transformed(alpha, np.zeros(()), eps, rounds=interpreter.rounds)
    return True


def skip_layer_norm(interpreter: Interpreter, node: Node) -> bool:
    """LayerNormalization of a sum, which is the fourth output."""
    rank = None if node.inputs[0] is None else interpreter.rank(node.inputs[0])
    scale, bias = node.input(2), node.input(3)
    if any(value is not None for value in node.outputs[1:3]) or rank is None or scale is None:
        return False
    added = [value for value in (*node.inputs[:2], node.input(4)) if value is not None]
    terms: list[tuple[AbstractValue, float, Value | None]] = [(interpreter.state_of(v), 1.0, v) for v in added]
    total = total_of(interpreter, node, terms, rank if len(added) == 2 else None)
    attrs = {"axis": -1, "epsilon": node.attr("epsilon", float(np.float32(1e-12)))}
    alone = Node("LayerNormalization", node.name, 17, node.graph, [added[0], scale, bias], node.outputs[:1], attrs)
    if node.outputs[0] is not None:
        made = layer_norm_state(interpreter, alone, total, rank)
        if made is None:  # the scale or the bias is computed
            base = interpreter.materialized(alone, total, interpreter.eps(node.inputs[0]))
            inputs = (base, *(interpreter.state_of(value).base for value in (scale, bias) if value is not None))
            made = interpreter.made(node, opaque_key(interpreter, alone, inputs))
        interpreter.states[node.outputs[0]] = made
    if len(node.outputs) > 3 and node.outputs[3] is not None:
        interpreter.states[node.outputs[3]] = total
    return True


def matmul_nbits(interpreter: Interpreter, node: Node) -> bool:
    """A product with integers in blocks: the scales of an output's blocks make its class, a bias is a shift."""
    scales, rank = floats(node, 2), node.output.rank
    if scales is None or rank is None or (node.input(5) is not None and floats(node, 5) is None):
        return False
    eps = LOOSE * interpreter.eps(node.inputs[2])
    read = interpreter.materialized(node, interpreter.state_of(node.inputs[0]), interpreter.eps(node.inputs[0]))
    others = tuple(interpreter.state_of(node.input(index)).base for index in (1, 3, 4))
    values = constant(node, 2).astype(np.float64).reshape((*(1,) * (rank - 1), node.attr("N"), -1))
    key = (node.op, interpreter.attributes(node), read, others)
    made = interpreter.made(node, key, lambda: Numbers(values, eps * np.abs(values)), "any")
    if node.input(5) is not None:
        bias = constant(node, 5).astype(np.float64).reshape((*(1,) * (rank - 1), -1))
        made = made.shifted(bias, eps * np.abs(bias))
    interpreter.states[node.output] = made
    return True


SEMANTICS = {
    "com.microsoft::MatMulNBits": matmul_nbits,
    "com.microsoft::SkipLayerNormalization": skip_layer_norm,
    **dict.fromkeys(("com.microsoft::FusedConv", "com.microsoft::FusedGemm"), fused),
    **dict.fromkeys(("HardSwish", "Swish", "Mish", "com.microsoft::QuickGelu"), gate),
    "com.microsoft::FusedMatMul": fused_matmul,
}
