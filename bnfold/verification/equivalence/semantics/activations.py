"""Piecewise linear activations, in two families: ``clip(x, low, high)`` and the leaky Relu."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import clip_bounds, constant, split_operands
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import is_float
from bnfold.rules.operands import aligned_constant
from bnfold.rules.reasons import Refusal
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import LOOSE, Array, Numbers, aligned
from bnfold.verification.equivalence.semantics.affine_ops import identity
from bnfold.verification.equivalence.semantics.choices import chosen
from bnfold.verification.equivalence.semantics.operands import keeps_shape
from bnfold.verification.equivalence.semantics.views import (
    along_last,
    sizes_of,
    through_view,
    varies_along_last,
    viewed,
)


def clip(interpreter: Interpreter, node: Node) -> bool:
    """Relu, Clip, and Max or Min with a constant: ``clip(x, low, high)``."""
    bounds = _bounds(node)
    if bounds is None or node.output.dtype is None or not is_float(node.output.dtype):
        return False
    data, low, high = bounds
    interpreter.states[node.output] = clip_state(interpreter, node, interpreter.state_of(node.inputs[data]), low, high)
    return True


def extreme(interpreter: Interpreter, node: Node) -> bool:
    """Max and Min: a clip with one constant; of several values, whichever it is comes out, with positive gains."""
    if len(node.inputs) == 1:
        return identity(interpreter, node)
    if clip(interpreter, node):
        return True
    return chosen(interpreter, node, (), "positive")


def clip_state(interpreter: Interpreter, node: Node, state: AbstractValue, low: Array, high: Array) -> AbstractValue:
    """Return ``clip(x, low, high)``, of a view as a view."""
    if low.size > 1 or high.size > 1:
        return _clip_along_last(interpreter, node, state, low, high)
    low, high = low.reshape(()), high.reshape(())
    return through_view(interpreter, node, state, lambda inner: _clip_state(interpreter, node, inner, low, high))


def _clip_along_last(
    interpreter: Interpreter, node: Node, state: AbstractValue, low: Array, high: Array
) -> AbstractValue:
    """Return a clip whose bounds differ: of a view as a view, where they and the state vary along the last axis alone.

    Behind a product with a matrix that is how a bound for all channels is found again after a fold.
    """
    root, sizes = interpreter.views.get(state.base, (state.base, None))
    own = sizes_of(interpreter, node.output)
    bounds = AbstractValue(state.base, gain_error=low, shift_error=high)
    if sizes is None or own is None or not all(varies_along_last(part, sizes, own) for part in (state, bounds)):
        return _clip_state(interpreter, node, state, low, high)
    inner = along_last(root, bounds, len(sizes))
    state = along_last(root, state, len(sizes))
    result = _clip_state(interpreter, node, state, inner.gain_error, inner.shift_error)
    base = viewed(interpreter, node, result.base, sizes, own)
    assert base is not None
    return along_last(base, result, len(own))


def _bounds(node: Node) -> tuple[int, Array, Array] | None:
    """Return which input is clipped, and the bounds, infinite for none; None if they are computed."""
    low, high = np.asarray(-np.inf), np.asarray(np.inf)
    if node.op == "Relu":
        return 0, np.asarray(0.0), high
    if node.op == "Clip":
        found = clip_bounds(node)
        if found is None:
            return None
        least, most = (
            np.asarray(end if bound is None else bound) for bound, end in zip(found, (low, high), strict=True)
        )
        return 0, least, most
    operands = split_operands(node)
    bound = None if operands is None or not keeps_shape(node, operands[1]) else aligned_constant(node, *operands)
    if operands is None or bound is None or isinstance(bound, Refusal):
        return None
    return (operands[0], bound, high) if node.op == "Max" else (operands[0], low, bound)


def _clip_state(interpreter: Interpreter, node: Node, state: AbstractValue, low: Array, high: Array) -> AbstractValue:
    """Return ``clip(g b + h)`` as ``clip(|g| b)`` between moved bounds, plus h; a negative gain swaps the bounds.

    The class stands for the first such value that was read, so that the same clip in the same network has no shift.
    A channel that does not vary is a constant, whatever is clipped.
    """
    if state.is_plain and state.base in interpreter.clips:
        state, inner_low, inner_high = interpreter.clips[state.base]
        inner_low, inner_high, low, high = aligned(inner_low, inner_high, low, high)
        low, high = (np.minimum(np.maximum(bound, low), high) for bound in (inner_low, inner_high))
    low = np.minimum(*aligned(low, high))
    gain, shift, gain_error, shift_error, low, high = np.broadcast_arrays(
        *aligned(state.affine.gain, state.affine.shift, state.gain_error, state.shift_error, low, high)
    )
    sign = np.where(gain < 0, -1.0, 1.0)
    bounds = np.where(sign > 0, low, -high) - sign * shift, np.where(sign > 0, high, -low) - sign * shift
    eps = interpreter.eps(node.output)
    bars = [shift_error + LOOSE * eps * (np.abs(shift) + np.where(np.isfinite(b), np.abs(b), 0.0)) for b in bounds]
    alive = gain != 0
    bounds = np.where(alive, bounds[0], 0.0), np.where(alive, bounds[1], 0.0)
    numbers = Numbers.stacked((np.abs(gain), *bounds), (gain_error, *bars))
    made = interpreter.made(node, ("clip", state.base), lambda: numbers, "positive")
    first = interpreter.numbering.clip_origins.setdefault(made.base, (sign, shift, shift_error))
    factor, error, sign, shift, shift_error, first_sign, first_shift, first_error = aligned(
        made.affine.gain, made.gain_error, sign, shift, shift_error, *first
    )
    total = factor * sign * first_sign
    moved = shift - total * first_shift
    level, dead = aligned(np.clip(shift, low, high), gain == 0)[0], aligned(total, gain == 0)[1]
    total, moved = np.where(dead, 0.0, total), np.where(dead, level, moved)
    lost = LOOSE * eps * (np.abs(shift) + np.abs(total * first_shift))  # the bounds were found equal up to that
    own_error = (shift_error + np.abs(total) * first_error + lost) * (moved != 0)
    made = AbstractValue(made.base, Affine.of(total, moved), error, own_error + error * np.abs(first_shift))
    if made.is_plain:
        interpreter.clips.setdefault(made.base, (state, low, high))
    return made


def leaky_relu(interpreter: Interpreter, node: Node) -> bool:
    """LeakyRelu, and PRelu with a constant slope."""
    if node.op == "LeakyRelu":
        slope = np.asarray(node.attr("alpha", 0.01), np.float64)
    else:
        known = aligned_constant(node, 0, 1) if node.graph.constants.is_constant(node.input(1)) else None
        if known is None or isinstance(known, Refusal):
            return False
        slope = known
    interpreter.states[node.output] = leaky_relu_state(interpreter, node, interpreter.state_of(node.inputs[0]), slope)
    return True


def where(interpreter: Interpreter, node: Node) -> bool:
    """Where: a leaky Relu, or whichever of two values it is comes out."""
    return _leaky_where(interpreter, node) or chosen(interpreter, node, (0,), "any")


def _leaky_where(interpreter: Interpreter, node: Node) -> bool:
    """Where as ``x < 0 ? s x : x``, which is how runtimes write a LeakyRelu that they have no kernel for."""
    test = None if node.inputs[0] is None else node.inputs[0].producer
    if test is None or test.op != "Less" or len(node.inputs) != 3:
        return False
    bound = test.inputs[1]
    if bound is None or not node.graph.constants.is_constant(bound):
        return False
    zero, rank = constant(test, 1), None if test.inputs[0] is None else test.inputs[0].rank
    if zero.size != 1 or zero.any() or rank is None or zero.ndim > rank:
        return False
    state, below, above = (interpreter.state_of(value) for value in (test.inputs[0], *node.inputs[1:]))
    same = above.agrees(state, interpreter.eps(node.output))
    if below.base != state.base or same is None or not same.all() or (state.affine.gain == 0).any():
        return False
    slope, gain = aligned(below.affine.gain, state.affine.gain)
    slope = slope / gain
    scaled = AbstractValue(state.base, Affine.of(slope, 0.0).after(state.affine), below.gain_error, below.shift_error)
    same = scaled.agrees(below, interpreter.eps(node.output))
    if same is None or not same.all():
        return False
    spread = slope.reshape(-1)
    if (np.abs(spread - spread[0]) <= 2 * interpreter.eps(node.output) * abs(spread[0])).all():
        slope = np.asarray(spread[0])
    interpreter.states[node.output] = leaky_relu_state(interpreter, node, state, slope)
    return True


def leaky_relu_state(interpreter: Interpreter, node: Node, state: AbstractValue, slope: Array) -> AbstractValue:
    """Return the leaky Relu, of a view as a view."""
    if slope.size > 1:
        return _leaky_relu_state(interpreter, node, state, slope)
    slope = slope.reshape(())
    return through_view(interpreter, node, state, lambda inner: _leaky_relu_state(interpreter, node, inner, slope))


def _leaky_relu_state(interpreter: Interpreter, node: Node, state: AbstractValue, slope: Array) -> AbstractValue:
    """Return ``p max(u, 0) - n max(-u, 0)`` of ``u = |g| b + h``: up to a factor, four numbers per channel."""
    gain, shift, gain_error, shift_error, slope = np.broadcast_arrays(
        *aligned(state.affine.gain, state.affine.shift, state.gain_error, state.shift_error, slope)
    )
    sign = np.where(gain < 0, -1.0, 1.0)
    above, below = np.where(sign > 0, 1.0, -slope), np.where(sign > 0, slope, -1.0)
    alive = gain != 0
    size, place = np.abs(gain), np.where(alive, sign * shift, 0.0)
    eps = LOOSE * interpreter.eps(node.output)
    bars = (gain_error + eps * size, shift_error + eps * np.abs(place))
    numbers = Numbers.stacked(
        (above * size, below * size, above * place, below * place),
        [np.abs(part) * bar for bar in bars for part in (above, below)],
    )
    made = interpreter.made(node, ("leaky_relu", state.base), lambda: numbers, "any")
    if alive.all():
        return made
    level = np.where(shift > 0, shift, slope * shift)
    factor, error, alive, level, shift_error = aligned(made.affine.gain, made.gain_error, alive, level, shift_error)
    return AbstractValue(
        made.base, Affine.of(np.where(alive, factor, 0.0), np.where(alive, 0.0, level)), error, shift_error
    )


SEMANTICS = {
    **dict.fromkeys(("Relu", "Clip"), clip),
    **dict.fromkeys(("Max", "Min"), extreme),
    **dict.fromkeys(("LeakyRelu", "PRelu"), leaky_relu),
    "Where": where,
}
