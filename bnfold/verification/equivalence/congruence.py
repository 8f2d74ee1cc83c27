"""What nodes read, and all that decides what they make: how a folded model's nodes are paired with the original's."""

from __future__ import annotations

from collections.abc import Hashable

from bnfold.ir.graph import Node
from bnfold.ir.random_operators import SHAPE_ONLY
from bnfold.verification.equivalence.interpreter import Interpreter

MOVES = frozenset(
    """
    Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile Slice Split Pad Gather Concat Identity Cast
    """.split()  # noqa: SIM905
)
"""Operators that compute no number."""


def behind_exchangeable(interpreter: Interpreter) -> set[Node]:
    """Return the nodes that depend on random values of which there are several of one kind.

    Which of them is which makes no difference that could be seen: other numbers there prove nothing.
    """
    kinds: dict[Hashable, list[Node]] = {}
    for node in interpreter.draws:
        reads = () if node.op in SHAPE_ONLY else tuple(node.inputs)
        kinds.setdefault((node.op, interpreter.attributes(node), node.settings, reads), []).append(node)
    found: set[Node] = {node for nodes in kinds.values() if len(nodes) > 1 for node in nodes}
    pending = list(found)
    while pending:
        consumers = {consumer for value in pending.pop().live_outputs for consumer in value.consumers} - found
        found |= consumers
        pending.extend(consumers)
    return found


def bases(interpreter: Interpreter, node: Node) -> tuple[int, ...]:
    """Return the classes of a node's inputs, without constants."""
    constants = node.graph.constants
    return tuple(
        interpreter.states[value].base
        for value in node.inputs
        if value is not None and value in interpreter.states and not constants.is_constant(value)
    )


def reads(interpreter: Interpreter, node: Node) -> list[int]:
    """Return the classes of all of a node's inputs."""
    return [interpreter.state_of(value).base for value in node.inputs if value is not None]


def congruence(interpreter: Interpreter, node: Node) -> Hashable | None:
    """Return all that decides what a node makes: operator, attributes, inputs. None with subgraphs, or chance."""
    if node in interpreter.graphs.bodies or node in interpreter.draws:
        return None
    reads: list[Hashable] = []
    for value in node.inputs:
        if value is not None and value.graph.constants.is_constant(value):
            reads.append(interpreter.fingerprint(value))
        else:
            state = interpreter.state_of(value)
            gain, shift = state.affine.gain, state.affine.shift
            reads.append((state.base, gain.shape, gain.tobytes(), shift.shape, shift.tobytes()))
    return node.op, node.opset, interpreter.attributes(node), tuple(reads)
