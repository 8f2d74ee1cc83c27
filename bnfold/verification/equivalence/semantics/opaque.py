"""Opaque operators, and recurrent ones, whose weights absorb the transform of their input."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant
from bnfold.ir.random_operators import SHAPE_ONLY
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Numbers
from bnfold.verification.equivalence.semantics.operands import floats
from bnfold.verification.equivalence.semantics.views import through_view


def opaque(interpreter: Interpreter, node: Node) -> bool:
    """Any operator: some function of its inputs, the same for the same operator and attributes."""
    states = [interpreter.state_of(value) for value in node.inputs]
    if node.op in ELEMENTWISE and len(states) == 1:
        interpreter.states[node.output] = elementwise_state(interpreter, node, states[0])
        return True
    inputs = [
        state.base if node.op in SHAPE_ONLY else interpreter.materialized(node, state, interpreter.eps(value))
        for value, state in zip(node.inputs, states, strict=True)
    ]
    if node.op in ("Sum", "Max", "Min", "Mean", "And", "Or", "Equal", "Add", "Mul"):
        inputs.sort()
    key = opaque_key(interpreter, node, tuple(inputs))
    bodies = interpreter.bodies(node, key)
    for index, value in enumerate(node.outputs):
        if value is not None:
            interpreter.states[value] = interpreter.made(
                node, opaque_key(interpreter, node, tuple(inputs), bodies, index)
            )
    return True


ELEMENTWISE = frozenset(
    """
    Acos Asin Atan Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Log Mish Not Round Selu
    Sigmoid Sign Sin Softplus Softsign Tan Tanh ThresholdedRelu
    """.split()  # noqa: SIM905
)
"""Operators of one input that act on each entry by itself."""


def elementwise_state(interpreter: Interpreter, node: Node, state: AbstractValue) -> AbstractValue:
    """Return an operator that acts on each entry by itself, of a view as a view."""

    def made(inner: AbstractValue) -> AbstractValue:
        inputs = (interpreter.materialized(node, inner, interpreter.eps(node.inputs[0])),)
        return interpreter.made(node, opaque_key(interpreter, node, inputs))

    return through_view(interpreter, node, state, made)


def opaque_key(
    interpreter: Interpreter, node: Node, inputs: tuple[int, ...], bodies: tuple[Hashable, ...] = (), index: int = 0
) -> tuple[Hashable, ...]:
    """Return what distinguishes the results of opaque operators.

    Two random values are never one. Two models draw the same ones where their random nodes are the same, in one order.
    """
    return node.op, interpreter.attributes(node), inputs, version(node), interpreter.draws.get(node), bodies, index


def version(node: Node) -> int:
    """Return 0 or 1: opsets matter only for the few operators whose meaning changed under the same attributes."""
    changed = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "Resize": 11, "Upsample": 9}
    return int(node.opset >= changed.get(node.op, 0))


def recurrent(interpreter: Interpreter, node: Node) -> bool:
    """LSTM, GRU and RNN: a transform of the features is absorbed by the input weights and their bias."""
    shape = floats(node, 1)
    state = interpreter.state_of(node.inputs[0])
    vectors = None if shape is None else state.affine.vectors(2, shape[2])
    if shape is None or vectors is None or (node.input(3) is not None and floats(node, 3) is None):
        return False
    weight = constant(node, 1).astype(np.float64)
    bias = constant(node, 3).astype(np.float64) if node.input(3) is not None else np.zeros((shape[0], 2 * shape[1]))
    rows = bias[:, : shape[1]] + weight @ vectors[1]
    numbers = [weight * vectors[0], rows[..., None], bias[:, shape[1] :, None]]
    eps = LOOSE * interpreter.eps(node.inputs[1])
    terms = np.abs(bias[:, : shape[1]]) + np.abs(weight) @ np.abs(vectors[1])
    bars = [eps * np.abs(numbers[0]), eps * terms[..., None], np.zeros_like(numbers[2])]
    stacked = Numbers(np.concatenate(numbers, -1), np.concatenate(bars, -1))
    others = tuple(
        interpreter.materialized(node, interpreter.state_of(v), interpreter.eps(v))
        for v in (*node.inputs[2:3], *node.inputs[4:])
    )
    key = (node.op, state.base, interpreter.attributes(node), others)
    for index, value in enumerate(node.outputs):
        if value is not None:
            interpreter.states[value] = interpreter.made(node, (*key, index), lambda: stacked)
    return True


def recurrent_of_torch(interpreter: Interpreter, node: Node) -> bool:
    """Torch's LSTM, GRU and RNN: the same, by a weight and a bias for each direction of the first layer."""
    count, biased = node.attr("directions"), bool(node.attr("biased"))
    read = [index + count * part for part in range(1 + biased) for index in range(1, count + 1)]
    source = node.inputs[0]
    if source is None or source.rank is None or any(floats(node, index) is None for index in read):
        return False
    state, size = interpreter.state_of(source), constant(node, 1).shape[1]
    vectors = state.affine.vectors(source.rank - 1, size)
    if vectors is None or (vectors[1].any() and not biased):
        return False
    eps, numbers, bars = LOOSE * interpreter.eps(node.inputs[1]), [], []
    for index in range(1, count + 1):
        weight = constant(node, index).astype(np.float64)
        bias = constant(node, index + count).astype(np.float64) if biased else np.zeros(len(weight))
        terms = np.abs(bias) + np.abs(weight) @ np.abs(vectors[1])
        numbers.append(np.concatenate([weight * vectors[0], (bias + weight @ vectors[1])[:, None]], -1))
        bars.append(eps * np.concatenate([np.abs(weight * vectors[0]), terms[:, None]], -1))
    stacked = Numbers(np.stack(numbers), np.stack(bars))
    others = tuple(
        interpreter.materialized(node, interpreter.state_of(value), interpreter.eps(value))
        for index, value in enumerate(node.inputs)
        if index and index not in read
    )
    key = (node.op, state.base, interpreter.attributes(node), others)
    for index, value in enumerate(node.outputs):
        if value is not None:
            interpreter.states[value] = interpreter.made(node, (*key, index), lambda: stacked)
    return True


SEMANTICS = {**dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent), "Recurrent": recurrent_of_torch}
