"""Align a folded model with its original: which of its values are which of the original's, and the mismatches.

Both are read into one table of classes. Where the folded model computes something that the original does not, that is
recorded, with the nearest thing that the original does, and reading goes on as if it had been right: one fault is
reported once, not in every layer behind it.
"""

from __future__ import annotations

import numpy as np

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.planner.branch_merging import merges
from bnfold.verification.equivalence.abstract_values import ValueNumbering
from bnfold.verification.equivalence.findings import Alignment, outputs_side_by_side
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.matcher import Matcher
from bnfold.verification.equivalence.mismatch import Mismatch, channels_of
from bnfold.verification.equivalence.semantics.table import SEMANTICS
from bnfold.verification.equivalence.tensors import compared_tensors


def align(original: Graphs, folded: Graphs) -> Alignment:
    """Read both models and compare them value by value.

    Branches that a tool may merge into one convolution are read as that convolution where this explains more.
    """
    with np.errstate(all="ignore"):  # models hold infinities and NaN; they are compared as what they are
        found = _read_both(original, folded, merged=False)
        if found.mismatches and any(merges(scope) for scope in original.scopes):
            other = _read_both(original, folded, merged=True)
            found = other if len(other.mismatches) < len(found.mismatches) else found
        return found


def _read_both(original: Graphs, folded: Graphs, *, merged: bool) -> Alignment:
    first = Interpreter(original, ValueNumbering(), SEMANTICS, merged=merged)
    first.read()
    second = Matcher(folded, first)
    second.read()
    found = Alignment(first, second, second.mismatches)
    for value in second.states:
        if (same := second.equals(value)) is not None:
            found.matched[value] = same
    alive = _alive(folded)
    found.mismatches = [p for p in found.mismatches if p.node in alive and _matters(p, found)]
    _compare_outputs(found, original, folded)
    found.tensors = [tensor for tensor in compared_tensors(found) if tensor.node in alive]
    return found


def _alive(graphs: Graphs) -> set[Node]:
    """Return the nodes on which an output depends: what goes wrong in a dead end is no difference."""
    alive: set[Node] = set()
    pending = list(graphs.scopes[0].outputs)
    while pending:
        node = pending.pop().producer
        if node is None or node in alive:
            continue
        bodies = [node]
        while bodies:
            current = bodies.pop()
            alive.add(current)
            pending += [value for value in current.inputs if value is not None]
            for _, graph in graphs.bodies.get(current, ()):
                pending += graph.outputs
                bodies += graph.nodes
    return alive


def _matters(mismatch: Mismatch, found: Alignment) -> bool:
    """False for something new whose every use ends in a value that the original has all the same."""
    if mismatch.kind != "unknown" or mismatch.counterpart is not None:
        return True
    pending, seen = list(mismatch.node.live_outputs), set[Value]()
    while pending:
        value = pending.pop()
        if value in seen or value in found.matched:
            continue
        seen.add(value)
        if value.is_output or value.captured:
            return True
        pending.extend(output for consumer in value.consumers for output in consumer.live_outputs)
    return False


def _compare_outputs(found: Alignment, original: Graphs, folded: Graphs) -> None:
    for value, mine in outputs_side_by_side(original, folded):
        same = found.folded.state_of(mine).agrees(found.original.state_of(value), found.folded.eps(mine))
        if same is None or not same.all():
            found.wrong_outputs[value.name] = None if same is None else channels_of(~same)
