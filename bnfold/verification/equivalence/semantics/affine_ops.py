"""Affine operators: BatchNormalization, arithmetic with constants, casts that lose nothing."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node, Value
from bnfold.ir.op_views import constant, split_operands
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import FLOATS, is_float
from bnfold.rules import normalization
from bnfold.rules.operands import as_affine
from bnfold.rules.reasons import Refusal
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import Array
from bnfold.verification.equivalence.semantics.contraction import narrowed
from bnfold.verification.equivalence.semantics.operands import keeps_shape
from bnfold.verification.equivalence.semantics.sums import add, product


def batch_norm(interpreter: Interpreter, node: Node) -> bool:
    """BatchNormalization: at inference a transform per channel."""
    if node.opset < 9 and not node.attr("spatial", 1):
        return False
    own = normalization.inference(node)
    if isinstance(own, Refusal):
        return False
    source, bn = own
    gain = bn.scale / np.sqrt(bn.var + bn.epsilon)
    terms = np.abs(bn.bias) + np.abs(bn.mean * gain)
    lead = (1,) if (source.rank or 2) > 1 else ()
    return _affine(interpreter, node, source, bn.affine(), terms.reshape(lead + terms.shape))


def arithmetic(interpreter: Interpreter, node: Node) -> bool:
    """Add, Sub, Mul and Div: a transform with a constant, else a sum or a product."""
    own = as_affine(node)
    if own is not None and not isinstance(own, Refusal):
        data = split_operands(node)
        widens = data is not None and not keeps_shape(node, data[1])
        if not widens and own[1].finite and own[0].dtype is not None and is_float(own[0].dtype):
            terms = np.abs(own[1].shift)
            if any(map(interpreter.is_computed, node.inputs)):  # sin(pi) is as far off as its argument is
                terms = np.maximum(terms, terms.max(initial=0.0))
            return _affine(interpreter, node, own[0], own[1], terms)
    if node.op in ("Add", "Sub"):
        return add(interpreter, node)
    return product(interpreter, node)


def negation(interpreter: Interpreter, node: Node) -> bool:
    """``-x``."""
    assert node.inputs[0] is not None
    return _affine(interpreter, node, node.inputs[0], Affine.of(-1.0, 0.0), np.zeros(()))


def _affine(interpreter: Interpreter, node: Node, source: Value, own: Affine, terms: Array) -> bool:
    eps = interpreter.eps(source, node.output)
    interpreter.states[node.output] = interpreter.state_of(source).transformed(
        own, terms, eps, rounds=interpreter.rounds
    )
    return True


def identity(interpreter: Interpreter, node: Node) -> bool:
    """Identity, and Dropout at inference."""
    if len(node.live_outputs) > 1 or node.outputs[0] is None:
        return False
    if node.op == "Dropout" and node.opset < 7 and not node.attr("is_test", 0):
        return False
    training = node.input(2)
    if (
        node.op == "Dropout"
        and training is not None
        and (not node.graph.constants.is_constant(training) or constant(node, 2).any())
    ):
        return False
    interpreter.states[node.output] = interpreter.state_of(node.inputs[0])
    return True


def cast(interpreter: Interpreter, node: Node) -> bool:
    """Cast and CastLike of floats: widening changes nothing, narrowing does unless the value was that narrow before."""
    source, target = node.inputs[0], node.output
    names = [v.dtype.name if v is not None and v.dtype is not None else "" for v in (source, target)]
    if source is None or any(name not in FLOATS for name in names):
        return False
    if not (names[0] == names[1] or tuple(names) in WIDENING or interpreter.was_held_in(source, names[1])):
        return narrowed(interpreter, node)
    interpreter.states[target] = interpreter.state_of(source)
    return True


WIDENING = {
    ("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32"), ("bfloat16", "float64"),
    ("float32", "float64"),
}  # fmt: skip


SEMANTICS = {
    "BatchNormalization": batch_norm,
    "Neg": negation,
    **dict.fromkeys(("Cast", "CastLike"), cast),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), arithmetic),
    **dict.fromkeys(("Identity", "Dropout"), identity),
}
