"""Faults of the planning: BatchNorms folded into the wrong layer, or folded where they had to stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto

from tests.wrong_folds.arithmetic import (
    Recipe,
    Stats,
    before,
    behind,
    folded,
    layer_of,
    places,
    refold,
    stats_of,
    store,
    true_gain,
    true_shift,
)
from tests.wrong_folds.edits import (
    attribute,
    bypass,
    copied,
    named,
    nodes_of,
    put,
    reread,
    set_attribute,
    turned,
    values,
)
from tests.wrong_folds.registry import Wrong, fault


def _map(original: ModelProto, bn: str) -> tuple[np.ndarray, np.ndarray]:
    stats = stats_of(original, bn)
    gain = true_gain(stats)
    return gain, true_shift(stats, gain)


@fault()
def folded_into_other(original: ModelProto, correct: ModelProto) -> Wrong:
    """One BatchNorm folded into another layer of as many channels, on top of that layer's own."""
    found = [place for place in turned("other", places(original, correct)) if place.is_behind]
    for one in found:
        for other in found:
            gain, shift = _map(original, one.bn)
            if other.layer == one.layer or stats_of(original, other.bn).scale.size != gain.size:
                continue
            left = Recipe(behind=lambda layer, g, s: behind(layer, g * 0 + 1, s * 0))
            both = Recipe(behind=lambda layer, g, s, gain=gain, shift=shift: behind(behind(layer, gain, shift), g, s))
            return refold(original, correct, {one.bn: left, other.bn: both})
    return None


@fault()
def statistics_of_other(original: ModelProto, correct: ModelProto) -> Wrong:
    """Two BatchNorms of as many channels swapped."""
    found = [place for place in turned("swapped", places(original, correct)) if place.is_behind]
    for one in found:
        for other in found:
            mine, theirs = stats_of(original, one.bn), stats_of(original, other.bn)
            if one != other and mine.scale.size == theirs.scale.size:
                swapped = {one.bn: theirs, other.bn: mine}
                return refold(original, correct, {bn: _given(stats) for bn, stats in swapped.items()})
    return None


def _given(stats: Stats) -> Recipe:
    return Recipe(stats=lambda _own: stats)


@fault()
def layers_swapped(original: ModelProto, correct: ModelProto) -> Wrong:
    """Two folded weights of the same shape swapped."""
    wrong, found = copied(correct), places(original, correct)
    layers = {place.layer: named(wrong, place.layer) for place in turned("layers", found)}
    for name, one in layers.items():
        for other_name, other in layers.items():
            assert one is not None and other is not None
            mine, theirs = values(wrong, one.input[1]), values(wrong, other.input[1])
            if name != other_name and mine.shape == theirs.shape:
                one.input[1], other.input[1] = other.input[1], one.input[1]
                return wrong
    return None


@fault()
def shared_weight_edited(original: ModelProto, correct: ModelProto) -> Wrong:
    """A weight that two layers share edited for both, though only one has a BatchNorm."""
    wrong = copied(correct)
    for place in places(original, correct):
        layer, now = named(original, place.layer), named(wrong, place.layer)
        assert layer is not None and now is not None
        for reader in nodes_of(wrong, layer.op_type):
            if reader.name != place.layer and layer.input[1] in reader.input:
                reader.input[1] = now.input[1]
                return wrong
    return None


def _kept(correct: ModelProto, key: str) -> list[NodeProto]:
    return turned(key, nodes_of(correct, "BatchNormalization"))


@fault()
def padding_border(original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm with a shift folded into the padded Conv behind it: the padding is no longer right."""
    return _folded_onward(original, correct, lambda gain, shift: (gain, shift))


@fault()
def padding_shift_lost(original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm before a padded Conv: its gain folded, its shift dropped to keep the padding right."""
    return _folded_onward(original, correct, lambda gain, shift: (gain, shift * 0))


Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _folded_onward(original: ModelProto, correct: ModelProto, change: Change) -> Wrong:
    found = places(original, correct)
    for bn in _kept(correct, "padding"):
        reader = next(made for made in correct.graph.node if bn.output[0] in made.input)
        mine = [place for place in found if place.layer == reader.name]
        if reader.op_type == "Conv" and any(attribute(reader, "pads", [0])) and mine:
            gain, shift = change(*_map(original, bn.name))
            both = Recipe(behind=lambda layer, g, s, x=gain, y=shift: behind(before(layer, x, y), g, s))
            wrong = refold(original, correct, {mine[0].bn: both})
            bypass(wrong, _found(wrong, bn.name))
            return wrong
    return None


@fault()
def two_readers(original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm folded into a Conv whose output somebody else reads too."""
    for bn in _kept(correct, "consumers"):
        producer = next((made for made in correct.graph.node if bn.input[0] in made.output), None)
        if producer is None or producer.op_type != "Conv":
            continue
        wrong = copied(correct)
        store(wrong, producer.name, behind(layer_of(original, producer.name), *_map(original, bn.name)))
        bypass(wrong, _found(wrong, bn.name))
        return wrong
    return None


@fault()
def kept_removed(_original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm that had to stay removed without folding."""
    wrong = copied(correct)
    for bn in _kept(wrong, "removed"):
        bypass(wrong, bn)
        return wrong
    return None


@fault()
def kept_in_training_mode(_original: ModelProto, correct: ModelProto) -> Wrong:
    """training_mode 1 on a BatchNorm that stays: the statistics of the batch are taken."""
    wrong = copied(correct)
    for bn in _kept(wrong, "training"):
        set_attribute(bn, "training_mode", 1)
        bn.output.extend([f"{bn.name}_mean_out", f"{bn.name}_var_out"])
        return wrong
    return None


@fault()
def kept_statistics_moved(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Mean and variance of a BatchNorm that stays 0.1 % too large."""
    wrong = copied(correct)
    for bn in _kept(wrong, "moved"):
        for name in bn.input[3:]:
            put(wrong, name, values(wrong, name).astype(np.float64) * 1.001)
        return wrong
    return None


@fault()
def kept_epsilon(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Another epsilon on a BatchNorm that stays."""
    wrong = copied(correct)
    for bn in _kept(wrong, "epsilon"):
        set_attribute(bn, "epsilon", 1e-3)
        return wrong
    return None


@fault()
def kept_inputs_swapped(_original: ModelProto, correct: ModelProto) -> Wrong:
    """Bias and mean of a BatchNorm that stays swapped."""
    wrong = copied(correct)
    for bn in _kept(wrong, "swapped"):
        bn.input[2], bn.input[3] = bn.input[3], bn.input[2]
        return wrong
    return None


@fault()
def kept_and_folded(original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm folded, but not removed."""
    wrong = copied(correct)
    for place in turned("kept and folded", [place for place in places(original, correct) if place.is_behind]):
        bn = copied(original)
        kept = _found(bn, place.bn)
        for name in kept.input[1:]:
            put(wrong, name, values(original, name))
        target = kept.output[0]
        position, producer = next((i, m) for i, m in enumerate(wrong.graph.node) if target in m.output)
        producer.output[0] = kept.input[0] = f"{target}_once"
        wrong.graph.node.insert(position + 1, kept)
        return wrong
    return None


@fault()
def residual_scaled(original: ModelProto, correct: ModelProto) -> Wrong:
    """A BatchNorm on one branch of an Add: its gain folded into the layer that feeds both branches."""
    for add in nodes_of(original, "Add"):
        branches = [place for place in places(original, correct) if _found(original, place.bn).output[0] in add.input]
        shared = [name for name in add.input if name.endswith("_relu")]
        own = [p for p in places(original, correct) if shared and p.layer == shared[0].removesuffix("_relu")]
        if branches and own:
            gain = np.abs(_map(original, branches[0].bn)[0])
            both = Recipe(behind=lambda layer, g, s, gain=gain: behind(behind(layer, g, s), gain, 0 * s))
            left = Recipe(behind=lambda layer, g, s: replace(behind(layer, g, s), weight=layer.weight))
            return refold(original, correct, {own[0].bn: both, branches[0].bn: left})
    return None


@fault()
def bias_of_matmul_before(original: ModelProto, correct: ModelProto) -> Wrong:
    """A MatMul's bias written where it is not multiplied: the Add reads its old constant."""
    wrong = copied(correct)
    for place in places(original, correct):
        if layer_of(original, place.layer).op != "MatMul":
            continue
        old = layer_of(original, place.layer).bias
        assert old is not None
        now = folded(original, place.layer, places(original, correct), {})
        store(wrong, place.layer, replace(now, bias=old))
        return wrong
    return None


@fault()
def reads_unnormalised(original: ModelProto, correct: ModelProto) -> Wrong:
    """A consumer of a folded layer's activation reads what stands before the activation."""
    wrong = copied(correct)
    for place in turned("unnormalised", [place for place in places(original, correct) if place.is_behind]):
        target = _found(original, place.bn).output[0]
        reader = next(made for made in wrong.graph.node if target in made.input)
        if reader.op_type in ("Relu", "Clip", "LeakyRelu"):
            if reader.output[0] not in {info.name for info in wrong.graph.output}:
                reread(wrong, reader.output[0], target)
                return wrong
    return None


def _found(model: ModelProto, name: str) -> NodeProto:
    made = named(model, name)
    assert made is not None, name
    return made
