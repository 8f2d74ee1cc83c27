"""Powers, roots, absolute values and norms: the gain comes out as its own, the shift belongs to the class.

``|g b| = |g| |b|``, ``sqrt(g b) = sqrt(g) sqrt(b)`` for ``g >= 0``, ``(g b)^n = g^n b^n``; the sign of a gain is taken
into the class where the operator is not defined for both, or reads it otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import exponent_of
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, aligned
from bnfold.verification.equivalence.semantics.opaque import opaque_key
from bnfold.verification.equivalence.semantics.views import through_view


def power(interpreter: Interpreter, node: Node) -> bool:
    """Abs, Sqrt, Reciprocal, and Pow by one constant number."""
    source, exponent = node.inputs[0], exponent_of(node)
    if exponent is None or source is None or source.dtype is None or source.dtype.kind in "iub":
        return False
    eps = interpreter.eps(source)

    def made(inner: AbstractValue) -> AbstractValue:
        state = interpreter.unshifted(node, inner, eps)
        whole = exponent == np.round(exponent) and node.op != "Abs"
        if not whole and node.op != "Abs":
            state = interpreter.positive(node, state)
        if exponent <= 0 and (state.affine.gain == 0).any():
            state = AbstractValue(interpreter.materialized(node, state, eps))
        gain = np.abs(state.affine.gain) if node.op == "Abs" else np.power(state.affine.gain, exponent)
        rest = tuple(interpreter.state_of(value).base for value in node.inputs[1:])
        result = interpreter.made(node, opaque_key(interpreter, node, (state.base, *rest)))
        return AbstractValue(result.base, Affine.of(gain, 0.0), _bars(interpreter, state, gain, abs(exponent), eps))

    interpreter.states[node.output] = through_view(interpreter, node, interpreter.state_of(source), made)
    return True


def norm(interpreter: Interpreter, node: Node) -> bool:
    """ReduceL1, ReduceL2 and ReduceSumSquare: the gain comes out without its sign, or squared."""
    source = node.inputs[0]
    others = [interpreter.state_of(value) for value in node.inputs[1:]]
    if source is None or not all(state.is_plain for state in others):
        return False
    eps = interpreter.eps(source)
    state = interpreter.unshifted(node, interpreter.state_of(source), eps)
    moved = _reduced(interpreter, node, state, eps)
    if moved is None:
        state = AbstractValue(interpreter.materialized(node, state, eps))
        moved = AbstractValue(0)
    key = (node.op, state.base, interpreter.attributes(node), tuple(state.base for state in others))
    made = interpreter.made(node, key)
    interpreter.states[node.output] = AbstractValue(made.base, moved.affine, moved.gain_error)
    return True


def _reduced(interpreter: Interpreter, node: Node, state: AbstractValue, eps: float) -> AbstractValue | None:
    """Return what becomes of a gain, laid out as a mean lays it out; None where it varies along a reduced axis."""
    exponent = 2.0 if node.op == "ReduceSumSquare" else 1.0
    gain = np.power(np.abs(state.affine.gain), exponent)
    inner = AbstractValue(state.base, Affine.of(gain, 0.0), _bars(interpreter, state, gain, exponent, eps))
    found = interpreter.carried(replace(node, op="ReduceMean"), inner)
    return None if found is None else found[node.output]


def _bars(interpreter: Interpreter, state: AbstractValue, gain: Array, slope: float, eps: float) -> Array:
    """Return the error of a power of a gain: ``slope`` times its relative error."""
    gain, own, error = aligned(np.abs(gain), np.abs(state.affine.gain), state.gain_error)
    rounding = LOOSE * eps if interpreter.rounds else 0.0
    return np.asarray(gain * (slope * error / np.where(own == 0, 1.0, own) + rounding))


SEMANTICS = {
    **dict.fromkeys(("Abs", "Pow", "Reciprocal", "Sqrt"), power),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), norm),
}
