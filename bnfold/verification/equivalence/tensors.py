"""The linear layers of a folded model beside the exact fold of the original's: ulps and differences per channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bnfold.ir.graph import Node
from bnfold.numerics.affine import Affine
from bnfold.numerics.rounding import rounded, ulp
from bnfold.verification.equivalence.abstract_values import AbstractValue
from bnfold.verification.equivalence.findings import Alignment, Tensor, suspect_layers
from bnfold.verification.equivalence.multiples import LOOSE, Array, aligned


def compared_tensors(found: Alignment) -> Iterator[Tensor]:
    """Yield each linear layer whose stored numbers are not the original's, in ulps of the exact fold."""
    lost = {mismatch.node for mismatch in found.folded.mismatches if mismatch.kind != "numbers"}
    suspected, proven = suspect_layers(found), not found.mismatches and not found.wrong_outputs
    for node, layer in found.folded.layers.items():
        if node in lost or any(value in found.folded.tainted for value in node.inputs):
            continue
        state = layer.output
        entry = found.original.numbering.entry(layer.base)
        mine, theirs = layer.rows(), None if entry.numbers is None else entry.numbers()
        if theirs is None or mine.values.shape != theirs.values.shape:
            continue
        meant = found.folded.meant(state, node.output, nearest=node in suspected)
        target = None if meant is None else found.original.states[meant]
        if target is not None and proven:
            target = _where_meant(state, target, found.folded.eps(node.output))
        lead = mine.values.shape[:-1]
        if len(lead) != layer.axis + 1:
            state, target = _as_rows(state, len(lead)), None if target is None else _as_rows(target, len(lead))
        gain = state.affine.gain if target is None else target.affine.gain
        if not _fits(gain, lead):
            continue
        spread = np.broadcast_to(gain.reshape(gain.shape + (1,) * (len(lead) - gain.ndim)), lead)
        differences = np.abs(mine.values - spread[..., None] * theirs.values)
        errors, owner = mine.errors, entry.owner
        if owner.handle is None or _is_sum(owner):  # several numbers added up: ulps at the size of the largest
            errors = np.broadcast_to(errors.max(axis=-1, keepdims=True), differences.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            ulps = np.where(differences == 0, 0.0, differences / (errors / LOOSE))
        ulps = np.where(np.isnan(differences), np.inf, ulps).max(axis=-1).reshape(-1)
        worst = np.nan_to_num(differences, nan=np.inf).max(axis=-1).reshape(-1)
        in_bias = False
        if target is not None and _own_bias(found, node, lead):
            shift_ulps, shift_differences = _shift_ulps(state, target, lead, layer.dtype)
            in_bias = bool(shift_ulps.max(initial=0.0) > ulps.max(initial=0.0))
            ulps, worst = np.maximum(ulps, shift_ulps), np.maximum(worst, shift_differences)
        own = None if owner.handle is None else found.original.layers.get(owner)
        plain = (
            target is not None
            and own is not None
            and _same_transform(own.output, target)
            and owner.attr("alpha", 1.0) == 1.0
        )
        plain = plain and _reads_the_same(found, node, owner) and _representable(theirs.values, layer.dtype)
        yield Tensor(node, ulps, worst, target is not None, plain, in_bias)


def _as_rows(state: AbstractValue, rank: int) -> AbstractValue:
    """Return a state of channels on the last axis, as one of channels on the last of ``rank`` axes."""

    def moved(array: Array) -> Array:
        return array.reshape((1,) * (rank - 1) + (-1,)) if array.size == max(array.shape, default=1) else array

    affine = Affine.of(moved(state.affine.gain), moved(state.affine.shift))
    return AbstractValue(state.base, affine, moved(state.gain_error), moved(state.shift_error))


def _where_meant(state: AbstractValue, target: AbstractValue, eps: float) -> AbstractValue:
    """Return ``target`` in the channels that equal it; in others a model whose outputs are right is free to differ.

    It may hold another multiple there. With the same gain, and one that is not zero, another shift is a wrong bias.
    """
    same = state.agrees(target, eps)
    if same is None or same.all():
        return target
    gains = state.affine.gain_only(), target.affine.gain_only()
    alike = AbstractValue(state.base, gains[0], state.gain_error).agrees(
        AbstractValue(state.base, gains[1], target.gain_error), eps
    )
    if alike is not None:
        same, alike, gain = aligned(same, alike, state.affine.gain)
        same = same | (alike & (gain != 0))
    arrays = aligned(same, target.affine.gain, state.affine.gain, target.affine.shift, state.affine.shift)
    same, gain, own_gain, shift, own_shift = np.broadcast_arrays(*arrays)
    return replace(target, affine=Affine.of(np.where(same, gain, own_gain), np.where(same, shift, own_shift)))


def _reads_the_same(found: Alignment, node: Node, owner: Node) -> bool:
    """Return True if both layers read one value, with the same transform."""
    values = [
        next((v for v in n.inputs if v is not None and not n.graph.constants.is_constant(v)), None)
        for n in (node, owner)
    ]
    states = [
        r.states.get(v) if v is not None else None for r, v in zip((found.folded, found.original), values, strict=True)
    ]
    first, second = states
    return first is not None and second is not None and first.base == second.base and _same_transform(first, second)


def _is_sum(layer: Node) -> bool:
    """Return True if a layer's weights are computed, and sums."""
    return any(value is not None and layer.graph.constants.is_sum(value) for value in layer.inputs[:2])


def _representable(weight: Array, dtype: Any) -> bool:
    """Return True if the type holds a weight as it is: one that the original computes is rounded when it is stored."""
    return dtype is not None and np.array_equal(rounded(weight, dtype), weight, equal_nan=True)


def _same_transform(first: AbstractValue, second: AbstractValue) -> bool:
    """Return True if two states of one class have exactly the same transform."""
    gain, shift, gain2, shift2 = aligned(first.affine.gain, first.affine.shift, second.affine.gain, second.affine.shift)
    return bool(np.array_equal(gain, gain2) and np.array_equal(shift, shift2))


def _fits(gain: Array, lead: tuple[int, ...]) -> bool:
    """Return True if a transform's array varies along no axis but that of the rows."""
    shape = gain.shape + (1,) * (len(lead) - gain.ndim)
    return len(shape) == len(lead) and all(size in (1, whole) for size, whole in zip(shape, lead, strict=True))


def _own_bias(found: Alignment, node: Node, lead: tuple[int, ...]) -> bool:
    """Return True if the layer's shift is its own bias: no shift comes in that carries an error already."""
    source = found.folded.states.get(node.inputs[0]) if node.inputs[0] is not None else None
    shift = found.folded.layers[node].output.affine.shift
    wide = shift.ndim > 0 and shift.shape[0] != 1
    sure = source is not None and (not source.shift_error.any() or found.folded.is_exact(node.inputs[0]))
    return node.op not in ("MatMul", "Einsum") and sure and not wide and _fits(shift, lead)


def _shift_ulps(state: AbstractValue, target: AbstractValue, lead: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    """Return the error of the bias, in ulps at the size of what it is added up from, and absolute."""
    mine, exact, terms, own = aligned(state.affine.shift, target.affine.shift, target.shift_error, state.shift_error)
    eps = float(ulp(np.ones(()), dtype))
    size = np.maximum(np.abs(exact), np.maximum(terms, own) / (LOOSE * eps))
    pad = (1,) * (len(lead) - mine.ndim)
    apart = np.where((mine == exact) | (np.isnan(mine) & np.isnan(exact)), 0.0, np.abs(mine - exact))
    differences = np.broadcast_to(apart.reshape(mine.shape + pad), lead).reshape(-1)
    size = np.broadcast_to(size.reshape(size.shape + pad), lead).reshape(-1)
    differences = np.nan_to_num(differences, nan=np.inf)
    return np.where(differences == 0, 0.0, differences / ulp(size, dtype)), differences
