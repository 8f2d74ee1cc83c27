"""Follow a folded model along its original: which of its values are which of the original's, and where they part.

Both are read into one table of classes. Where the folded model computes something that the original does not, that is
noted, with the nearest thing that the original does, and reading goes on as if it had been right: one fault is
reported once, not in every layer behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bnfold.ir.graph import Graphs, Node, Value
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import ulp
from bnfold.planner.branch_merging import merges
from bnfold.verification.equivalence.abstract_values import LOOSE, AbstractValue, Array, ValueNumbering, aligned
from bnfold.verification.equivalence.interpreter import Interpreter
from bnfold.verification.equivalence.matcher import Matcher
from bnfold.verification.equivalence.mismatch import Mismatch, channels_of


@dataclass(frozen=True)
class Tensor:
    """A linear layer of the folded model beside the exact fold of the original's: ulps and differences per channel.

    ``plain`` says that nothing was to be folded into it: its numbers should be the original's to the last bit.
    """

    node: Node
    ulps: Array
    differences: Array
    matched: bool
    plain: bool


@dataclass
class Alignment:
    """Both models, read. ``anchors`` pairs values of the folded model with those of the original that they equal.

    ``wrong_outputs`` are those that are no value of the original (None), or another map of it in some channels.
    """

    original: Interpreter
    folded: Matcher
    mismatches: list[Mismatch] = field(default_factory=list)
    matched: dict[Value, Value] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    wrong_outputs: dict[str, list[int] | None] = field(default_factory=dict)


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
    first = Interpreter(original, ValueNumbering(), merged=merged)
    first.read()
    second = Matcher(folded, first)
    second.read()
    found = Alignment(first, second, second.mismatches)
    for value in second.abstract:
        if (same := second.equals(value)) is not None:
            found.matched[value] = same
    alive = _alive(folded)
    found.mismatches = [p for p in found.mismatches if p.node in alive and _matters(p, found)]
    _compare_outputs(found, original, folded)
    found.tensors = [tensor for tensor in _tensors(found) if tensor.node in alive]
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
        pending.extend(output for interpreter in value.readers for output in interpreter.live_outputs)
    return False


def _compare_outputs(found: Alignment, original: Graphs, folded: Graphs) -> None:
    for value, mine in outputs_side_by_side(original, folded):
        same = found.folded.abstract_of(mine).agrees(found.original.abstract_of(value), found.folded.eps(mine))
        if same is None or not same.all():
            found.wrong_outputs[value.name] = None if same is None else channels_of(~same)


def outputs_side_by_side(original: Graphs, folded: Graphs) -> list[tuple[Value, Value]]:
    """The outputs that stand for each other: of one name, or of one place where callers go by that."""
    first, second = original.scopes[0].outputs, folded.scopes[0].outputs
    if not original.outputs_are_named:
        return list(zip(first, second, strict=False))
    made = {value.name: value for value in second}
    return [(value, made[value.name]) for value in first if value.name in made]


def _tensors(found: Alignment) -> Iterator[Tensor]:
    """Each linear layer whose stored numbers are not the original's, in ulps of the exact fold."""
    lost = {mismatch.node for mismatch in found.folded.mismatches if mismatch.kind != "numbers"}
    suspected, proven = suspect_layers(found), not found.mismatches and not found.wrong_outputs
    for node, layer in found.folded.layers.items():
        if node in lost or any(value in found.folded.tainted for value in node.inputs):
            continue
        abstract = layer.abstract
        entry = found.original.numbering.entry(abstract.base)
        mine, theirs = layer.rows(), None if entry.numbers is None else entry.numbers()
        if theirs is None or mine.values.shape != theirs.values.shape:
            continue
        meant = found.folded.meant(abstract, node.output, nearest=node in suspected)
        target = None if meant is None else found.original.abstract[meant]
        if target is not None and proven:
            target = _where_meant(abstract, target, found.folded.eps(node.output))
        gain = abstract.map.gain if target is None else target.map.gain
        if not _fits(gain, mine.values.shape[:-1]):
            continue
        lead = mine.values.shape[:-1]
        spread = np.broadcast_to(gain.reshape(gain.shape + (1,) * (len(lead) - gain.ndim)), lead)
        differences = np.abs(mine.values - spread[..., None] * theirs.values)
        errors, owner = mine.errors, entry.owner
        if owner.handle is None:  # several kernels added up: ulps at the size of the largest
            errors = np.broadcast_to(errors.max(axis=-1, keepdims=True), differences.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            ulps = np.where(differences == 0, 0.0, differences / (errors / LOOSE))
        ulps = np.where(np.isnan(differences), np.inf, ulps).max(axis=-1).reshape(-1)
        worst = np.nan_to_num(differences, nan=np.inf).max(axis=-1).reshape(-1)
        if target is not None and _own_bias(found, node):
            shift_ulps, shift_differences = _shift_ulps(abstract, target, lead, layer.dtype)
            ulps, worst = np.maximum(ulps, shift_ulps), np.maximum(worst, shift_differences)
        own = None if owner.handle is None else found.original.layers.get(owner)
        plain = (
            target is not None and own is not None and _one(own.abstract, target) and owner.attr("alpha", 1.0) == 1.0
        )
        plain = plain and _reads_the_same(found, node, owner)
        yield Tensor(node, ulps, worst, target is not None, plain)


def _where_meant(abstract: AbstractValue, target: AbstractValue, eps: float) -> AbstractValue:
    """``target`` in the channels that are what it is; in others a model whose outputs are right is free to differ.

    It may carry another multiple there. With the same gain, and one that is not zero, another shift is a wrong bias.
    """
    same = abstract.agrees(target, eps)
    if same is None or same.all():
        return target
    gains = abstract.map.gain_only(), target.map.gain_only()
    alike = AbstractValue(abstract.base, gains[0], abstract.gain_error).agrees(
        AbstractValue(abstract.base, gains[1], target.gain_error), eps
    )
    if alike is not None:
        same, alike, gain = aligned(same, alike, abstract.map.gain)
        same = same | (alike & (gain != 0))
    arrays = aligned(same, target.map.gain, abstract.map.gain, target.map.shift, abstract.map.shift)
    same, gain, own_gain, shift, own_shift = np.broadcast_arrays(*arrays)
    return replace(target, map=Affine.of(np.where(same, gain, own_gain), np.where(same, shift, own_shift)))


def suspect_layers(found: Alignment) -> set[Node]:
    """The layers whose numbers may be behind what is wrong."""
    suspected = {layer for p in found.mismatches if p.kind == "numbers" for layer in layers_before(p.node)}
    sides = outputs_side_by_side(found.original.graphs, found.folded.graphs)
    outputs = {value.name: mine for value, mine in sides}
    for name, channels in found.wrong_outputs.items():
        if channels is not None and (producer := outputs[name].producer) is not None:
            suspected.update(layers_before(producer))
    return suspected


def _reads_the_same(found: Alignment, node: Node, owner: Node) -> bool:
    """True if both layers read one value, with nothing to be folded in from before."""
    values = [
        next((v for v in n.inputs if v is not None and not n.graph.constants.is_constant(v)), None)
        for n in (node, owner)
    ]
    abstract_values = [
        r.abstract.get(v) if v is not None else None
        for r, v in zip((found.folded, found.original), values, strict=True)
    ]
    first, second = abstract_values
    return first is not None and second is not None and first.base == second.base and _one(first, second)


def _one(first: AbstractValue, second: AbstractValue) -> bool:
    """True if two forms of one class carry the very same map."""
    gain, shift, gain2, shift2 = aligned(first.map.gain, first.map.shift, second.map.gain, second.map.shift)
    return bool(np.array_equal(gain, gain2) and np.array_equal(shift, shift2))


def _fits(map_: Array, lead: tuple[int, ...]) -> bool:
    """True if a map varies along no axis but that of the rows."""
    shape = map_.shape + (1,) * (len(lead) - map_.ndim)
    return len(shape) == len(lead) and all(size in (1, whole) for size, whole in zip(shape, lead, strict=True))


def _own_bias(found: Alignment, node: Node) -> bool:
    """True if the layer's shift is its own: a bias, and no shift comes in that carries an error already."""
    source = found.folded.abstract.get(node.inputs[0]) if node.inputs[0] is not None else None
    shift = found.folded.layers[node].abstract.map.shift
    wide = shift.ndim > 0 and shift.shape[0] != 1
    sure = source is not None and (not source.shift_error.any() or found.folded.is_exact(node.inputs[0]))
    return node.op != "MatMul" and sure and not wide


def _shift_ulps(
    abstract: AbstractValue, target: AbstractValue, lead: tuple[int, ...], dtype: Any
) -> tuple[Array, Array]:
    """The bias beside the exact one, in ulps at the size of what it is added up from."""
    mine, exact, terms, own = aligned(abstract.map.shift, target.map.shift, target.shift_error, abstract.shift_error)
    eps = float(ulp(np.ones(()), dtype))
    size = np.maximum(np.abs(exact), np.maximum(terms, own) / (LOOSE * eps))
    pad = (1,) * (len(lead) - mine.ndim)
    apart = np.where((mine == exact) | (np.isnan(mine) & np.isnan(exact)), 0.0, np.abs(mine - exact))
    differences = np.broadcast_to(apart.reshape(mine.shape + pad), lead).reshape(-1)
    size = np.broadcast_to(size.reshape(size.shape + pad), lead).reshape(-1)
    differences = np.nan_to_num(differences, nan=np.inf)
    return np.where(differences == 0, 0.0, differences / ulp(size, dtype)), differences


LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LSTM", "GRU", "RNN"})


def layers_before(node: Node) -> Iterator[Node]:
    """The node itself if it holds weights, else the nearest layers with weights that it reads from."""
    seen: set[Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op.removeprefix("com.microsoft::Fused") in LAYERS:
            yield current
        else:
            pending.extend(
                value.producer for value in current.inputs if value is not None and value.producer is not None
            )
