"""Normalizations by the statistics of their input: a scale and a bias, a transform of what is normalized."""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Node
from bnfold.ir.op_views import constant
from bnfold.numerics.affine import Affine
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.multiples import Array
from bnfold.verification.equivalence.semantics.operands import floats


def instance_norm(interpreter: Interpreter, node: Node) -> bool:
    """InstanceNormalization: the positions of each channel are normalized."""
    if not _reads_parameters(node, 1):
        return False
    state = _centred(interpreter.state_of(node.inputs[0]), 2)
    scale, bias = _scale_and_bias(node)
    interpreter.states[node.output] = _scaled(interpreter, node, state, scale[None], bias[None])
    return True


def group_norm(interpreter: Interpreter, node: Node) -> bool:
    """GroupNormalization: before opset 21 its scale and bias are those of a group, then of a channel."""
    source = node.inputs[0]
    shape = None if source is None else source.shape
    channels = None if shape is None or len(shape) < 2 else shape[1]
    if not _reads_parameters(node, 1) or not isinstance(channels, int):
        return False
    scale, bias = _scale_and_bias(node)
    groups = node.attr("num_groups", 0)
    if len(scale) != channels:
        if node.opset >= 21 or len(scale) != groups or channels % groups:
            return False
        scale, bias = (np.repeat(part, channels // groups) for part in (scale, bias))
    state = interpreter.state_of(source)
    interpreter.states[node.output] = _scaled(interpreter, node, state, scale[None], bias[None])
    return True


def layer_norm(interpreter: Interpreter, node: Node) -> bool:
    """LayerNormalization and RMSNormalization: all entries along the last axes are normalized."""
    source = node.inputs[0]
    if source is None or len(node.live_outputs) > 1 or node.outputs[0] is None:
        return False
    made = layer_norm_state(interpreter, node, interpreter.state_of(source), interpreter.rank(source))
    if made is not None:
        interpreter.states[node.output] = made
    return made is not None


def layer_norm_state(
    interpreter: Interpreter, node: Node, state: AbstractValue, rank: int | None
) -> AbstractValue | None:
    """Return what a LayerNormalization makes of ``state``, which has this rank; None if its scale has another.

    ``node`` may stand for a part of an operator: what it makes is the class of a LayerNormalization all the same.
    """
    if not rank:
        return None
    axis = node.attr("axis", -1) % rank
    if not _reads_parameters(node, rank - axis):
        return None
    if node.op == "LayerNormalization":
        state = _centred(state, axis)
    lead = (1,) * axis
    scale, bias = (part.reshape(lead + part.shape) for part in _scale_and_bias(node))
    return _scaled(interpreter, node, state, scale, bias)


def _reads_parameters(node: Node, rank: int) -> bool:
    """Return True if one result is asked for, and scale and bias are constants of this rank and one shape."""
    shape = floats(node, 1)
    if shape is None or len(shape) != rank or node.outputs[0] is None or len(node.live_outputs) > 1:
        return False
    return node.input(2) is None or floats(node, 2) == shape


def _scale_and_bias(node: Node) -> tuple[Array, Array]:
    scale = constant(node, 1).astype(np.float64)
    return scale, np.zeros_like(scale) if node.input(2) is None else constant(node, 2).astype(np.float64)


def _centred(state: AbstractValue, first: int) -> AbstractValue:
    """Return the value without an offset that is the same along the axes from ``first`` on, whose mean is subtracted.

    Nothing is left of its error either.
    """
    if max(state.affine.shift.ndim, state.shift_error.ndim) > first:
        return state
    return AbstractValue(state.base, state.affine.gain_only(), state.gain_error)


def _scaled(interpreter: Interpreter, node: Node, state: AbstractValue, scale: Array, bias: Array) -> AbstractValue:
    """Return the class of what is normalized, with this transform."""
    read = interpreter.materialized(node, state, interpreter.eps(node.inputs[0]))
    base = interpreter.made(node, (node.op, interpreter.attributes(node), read)).base
    made = AbstractValue(base)
    return made.transformed(Affine.of(scale, bias), np.abs(bias), interpreter.eps(node.inputs[1]))


SEMANTICS = {
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
}
