"""The fold once more, in numpy and float64 and apart from bnfold's own, with each step open to a mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from tests.wrong_folds.edits import attribute, copied, named, put, stored, values

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stats:
    """The parameters of one BatchNorm."""

    scale: Array
    bias: Array
    mean: Array
    var: Array
    epsilon: float

    @property
    def live(self) -> NDArray[np.intp]:
        """The channels that are not dead, the faintest last."""
        order = np.argsort(-np.abs(self.scale), kind="stable")
        return order[np.abs(self.scale[order]) > 0]


@dataclass(frozen=True)
class Layer:
    """A linear layer: its weights as stored, its bias with Gemm's beta already in it."""

    op: str
    weight: Array
    bias: Array | None
    group: int = 1
    alpha: float = 1.0
    beta: float = 1.0
    flipped: bool = False

    @property
    def offset(self) -> Array | float:
        """The bias, or 0."""
        return 0.0 if self.bias is None else self.bias

    def grouped(self) -> Array:
        """The weights as (group, out, in, kernel)."""
        if self.op == "Conv":
            return self.weight.reshape(self.group, -1, self.weight.shape[1], self.weight[0, 0].size)
        if self.op == "ConvTranspose":
            split = self.weight.reshape(self.group, -1, self.weight.shape[1], self.weight[0, 0].size)
            return split.transpose(0, 2, 1, 3)
        return (self.weight if self.flipped else self.weight.T)[None, :, :, None]

    def with_grouped(self, seen: Array) -> Layer:
        """The layer with other weights, given as (group, out, in, kernel)."""
        if self.op == "ConvTranspose" or (self.op in ("Gemm", "MatMul") and not self.flipped):
            seen = seen.transpose(0, 2, 1, 3)
        return replace(self, weight=seen.reshape(self.weight.shape))


Gain = Callable[[Stats], Array]
Shift = Callable[[Stats, Array], Array]
Into = Callable[[Layer, Array, Array], Layer]


def true_gain(stats: Stats) -> Array:
    """The factor of the map."""
    return stats.scale / np.sqrt(stats.var + stats.epsilon)


def true_shift(stats: Stats, gain: Array) -> Array:
    """The term of the map."""
    return stats.bias - stats.mean * gain


def behind(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The layer with a map behind it taken in."""
    seen = layer.grouped()
    scaled = layer.with_grouped(seen * gain.reshape(*seen.shape[:2], 1, 1))
    return replace(scaled, bias=gain * layer.offset + shift)


def before(layer: Layer, gain: Array, shift: Array) -> Layer:
    """The layer with a map before it taken in, one entry of the map for each input or for each block of inputs."""
    seen = layer.grouped()
    entries = seen.shape[0] * seen.shape[2] // gain.size
    repeated = [np.repeat(part, entries).reshape(seen.shape[0], 1, -1, 1) for part in (gain, shift)]
    scaled = layer.with_grouped(seen * repeated[0])
    moved = layer.alpha * (seen * repeated[1]).sum((2, 3)).ravel()
    return replace(scaled, bias=layer.offset + moved)


@dataclass(frozen=True)
class Recipe:
    """How one BatchNorm is folded; each step may be replaced by a wrong one."""

    stats: Callable[[Stats], Stats] = lambda stats: stats
    gain: Gain = true_gain
    shift: Shift = true_shift
    behind: Into = behind
    before: Into = before


@dataclass(frozen=True)
class Place:
    """A BatchNorm and the layer that it is folded into, by the names of their nodes."""

    bn: str
    layer: str
    is_behind: bool


def places(original: ModelProto, correct: ModelProto) -> list[Place]:
    """The BatchNorms that the correct fold has removed, in the order of the graph."""
    return [place for place in _all_places(original) if named(correct, place.bn) is None]


def _all_places(original: ModelProto) -> list[Place]:
    graph = original.graph
    made = {output: made for made in graph.node for output in made.output}
    read = {name: other for other in graph.node for name in other.input[:1]}
    found = []
    for bn in (node for node in graph.node if node.op_type == "BatchNormalization"):
        owner = made.get(bn.input[0])
        if owner is not None and owner.op_type == "Add" and made[owner.input[0]].op_type == "MatMul":
            owner = made[owner.input[0]]
        if owner is not None and owner.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            found.append(Place(bn.name, owner.name, True))
            continue
        reader = read[bn.output[0]]
        found.append(Place(bn.name, (read[reader.output[0]] if reader.op_type == "Flatten" else reader).name, False))
    return found


def stats_of(original: ModelProto, bn: str) -> Stats:
    """The parameters of a BatchNorm of the original."""
    made = _node(original, bn)
    parts = [values(original, name).astype(np.float64) for name in made.input[1:]]
    return Stats(*parts, attribute(made, "epsilon", float(np.float32(1e-5))))


def layer_of(original: ModelProto, name: str) -> Layer:
    """A layer of the original."""
    made = _node(original, name)
    bias_name = _bias_name(original, made)
    bias = values(original, bias_name).astype(np.float64) if bias_name else None
    group, alpha, beta = (attribute(made, key, 1) for key in ("group", "alpha", "beta"))
    weight, flipped = values(original, made.input[1]).astype(np.float64), bool(attribute(made, "transB", 0))
    return Layer(made.op_type, weight, None if bias is None else beta * bias, group, alpha, beta, flipped)


def folded(original: ModelProto, name: str, found: list[Place], recipes: Mapping[str, Recipe]) -> Layer:
    """A layer with its BatchNorms folded in, each by its recipe or, without one, correctly."""
    layer = layer_of(original, name)
    for place in sorted((place for place in found if place.layer == name), key=lambda place: place.is_behind):
        recipe = recipes.get(place.bn, Recipe())
        stats = recipe.stats(stats_of(original, place.bn))
        with np.errstate(invalid="ignore"):
            gain = recipe.gain(stats)
            layer = (recipe.behind if place.is_behind else recipe.before)(layer, gain, recipe.shift(stats, gain))
    return layer


def refold(original: ModelProto, correct: ModelProto, recipes: Mapping[str, Recipe]) -> ModelProto:
    """A copy of the correct fold, with the layers of these BatchNorms computed again by these recipes."""
    found, wrong = places(original, correct), copied(correct)
    for name in {place.layer for place in found if place.bn in recipes}:
        store(wrong, name, folded(original, name, found, recipes))
    return wrong


def store(model: ModelProto, name: str, layer: Layer) -> None:
    """Write a layer's numbers over those that a folded model holds for it."""
    made = _node(model, name)
    put(model, made.input[1], layer.weight)
    assert layer.bias is not None
    put(model, _bias_name(model, made), layer.bias)


def bias_name(model: ModelProto, name: str) -> str:
    """The initializer that holds a layer's bias, or an empty string."""
    return _bias_name(model, _node(model, name))


def _bias_name(model: ModelProto, made: NodeProto) -> str:
    if made.op_type != "MatMul":
        return made.input[2] if len(made.input) > 2 else ""
    add = next(other for other in model.graph.node if made.output[0] in other.input)
    return next(name for name in add.input if stored(model, name) is not None)


def _node(model: ModelProto, name: str) -> NodeProto:
    made = named(model, name)
    assert made is not None, name
    return made
