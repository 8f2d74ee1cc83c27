"""Faults of the layout: the right map applied to the wrong channels, or BatchNorms folded wrongly in whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.wrong_folds.arithmetic import Array, Layer, Place, Stats, before, behind, true_gain
from tests.wrong_folds.mistakes import is_behind, mistake, op


def along_inputs(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The gain applied to the input channels of a square layer."""
    seen = layer.grouped()
    return replace(layer.with_grouped(seen * gain.reshape(1, 1, -1, 1)), bias=gain * layer.offset + shift)


def is_square(place: Place, layer: Layer, _stats: Stats) -> bool:
    """For layers with as many outputs as inputs, in one group."""
    seen = layer.grouped()
    return place.is_behind and len(seen) == 1 and seen.shape[1] == seen.shape[2]


def has_groups(place: Place, layer: Layer, _stats: Stats) -> bool:
    """For grouped layers."""
    return place.is_behind and layer.group > 1


def other_group(layer: Layer, gain: Array, shift: Array) -> Layer:
    """Each group's weights multiplied by the next group's gains."""
    rolled = np.roll(gain.reshape(layer.group, -1), 1, axis=0).ravel()
    return replace(behind(layer, rolled, shift), bias=gain * layer.offset + shift)


def interleaved(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The gains dealt to the groups one by one rather than in blocks."""
    dealt = gain.reshape(-1, layer.group).T.ravel()
    return replace(behind(layer, dealt, shift), bias=gain * layer.offset + shift)


def repeated(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The first group's gains used for all groups, as the (in, out / group) layout suggests."""
    first = np.tile(gain.reshape(layer.group, -1)[0], layer.group)
    return replace(behind(layer, first, shift), bias=gain * layer.offset + shift)


def untransposed(layer: Layer, gain: Array, shift: Array) -> Layer:
    """Gemm's weights taken for the other layout."""
    other = layer.weight.reshape(layer.weight.shape[::-1]) * gain
    return replace(layer, weight=other.reshape(layer.weight.shape), bias=gain * layer.offset + shift)


def tiled(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The map of a BatchNorm before a Flatten laid out as if channels came last."""
    entries = layer.grouped().shape[2] // gain.size
    return before(layer, np.tile(gain, entries), np.tile(shift, entries))


def not_behind(place: Place, _layer: Layer, _stats: Stats) -> bool:
    """For BatchNorms that stand before their layer."""
    return not place.is_behind


def flattened(place: Place, layer: Layer, stats: Stats) -> bool:
    """For BatchNorms whose layer stands behind a Flatten."""
    return not place.is_behind and layer.grouped().shape[2] > stats.scale.size


mistake("gain_along_inputs", "the gain applied along the weight's input channels", is_square, behind=along_inputs)
mistake(
    "neighbour_gain",
    "every channel gets its neighbour's whole map",
    gain=lambda s: np.roll(true_gain(s), 1),
)
mistake(
    "neighbour_gain_weights",
    "every channel's weights get its neighbour's gain, its bias the right one",
    is_behind,
    behind=lambda layer, g, s: replace(behind(layer, np.roll(g, -1), s), bias=g * layer.offset + s),
)
mistake("other_group", "each group multiplied by another group's gains", has_groups, behind=other_group)
mistake(
    "groups_interleaved",
    "the gains dealt to the groups one by one",
    lambda place, layer, stats: has_groups(place, layer, stats) and layer.group < stats.scale.size,
    behind=interleaved,
)
mistake(
    "transposed_groups_repeated", "a grouped ConvTranspose's groups share gains", op("ConvTranspose"), behind=repeated
)
mistake(
    "transpose_ignored",
    "Gemm's transB ignored when the gain is applied",
    lambda place, layer, _stats: place.is_behind and layer.flipped,
    behind=untransposed,
)
mistake("flatten_order", "before a Flatten, the map laid out channels last", flattened, before=tiled)
mistake(
    "shift_before_lost",
    "a BatchNorm before its layer: the gain folded, the shift dropped",
    not_behind,
    before=lambda layer, gain, shift: before(layer, gain, 0 * shift),
)
mistake(
    "shift_before_without_alpha",
    "a BatchNorm before a Gemm: alpha not applied to its shift",
    lambda place, layer, _stats: not place.is_behind and layer.alpha != 1,
    before=lambda layer, gain, shift: before(layer, gain, shift / layer.alpha),
)
mistake(
    "gain_before_divided",
    "a BatchNorm before its layer: the weights divided by the gain",
    not_behind,
    before=lambda layer, gain, shift: replace(before(layer, 1 / gain, shift), bias=before(layer, gain, shift).bias),
)
mistake(
    "folded_twice",
    "one BatchNorm folded twice",
    behind=lambda layer, gain, shift: behind(behind(layer, gain, shift), gain, shift),
    before=lambda layer, gain, shift: before(before(layer, gain, shift), gain, shift),
)
mistake(
    "removed_without_folding",
    "one BatchNorm removed, its layer left as it was",
    behind=lambda layer, gain, shift: behind(layer, gain * 0 + 1, shift * 0),
    before=lambda layer, gain, shift: before(layer, gain * 0 + 1, shift * 0),
)
