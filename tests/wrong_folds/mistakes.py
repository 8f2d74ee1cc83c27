"""Wrong folds by wrong recipes: one step of the arithmetic replaced, in one place or in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from onnx import ModelProto

from tests.wrong_folds.arithmetic import (
    Array,
    Layer,
    Place,
    Recipe,
    Stats,
    layer_of,
    places,
    refold,
    stats_of,
)
from tests.wrong_folds.edits import turned
from tests.wrong_folds.registry import Fault, Wrong, register

Fits = Callable[[Place, Layer, Stats], bool]


def anywhere(_place: Place, _layer: Layer, _stats: Stats) -> bool:
    """For mistakes that any BatchNorm can suffer."""
    return True


def is_behind(place: Place, _layer: Layer, _stats: Stats) -> bool:
    """For mistakes of the usual order: layer, BatchNorm."""
    return place.is_behind


@dataclass(frozen=True)
class Mistake:
    """A recipe that is wrong, and where: in the first place that fits and where it changes a byte, or everywhere."""

    name: str
    recipe: Recipe
    fits: Fits = anywhere
    everywhere: bool = False

    def __call__(self, original: ModelProto, correct: ModelProto) -> Wrong:
        """The fold with the mistake in it."""
        fitting = [
            place
            for place in turned(self.name, places(original, correct))
            if self.fits(place, layer_of(original, place.layer), stats_of(original, place.bn))
        ]
        tries = [fitting] if self.everywhere and fitting else [[place] for place in fitting]
        for chosen in tries:
            wrong = refold(original, correct, {place.bn: self.recipe for place in chosen})
            if wrong.SerializeToString() != correct.SerializeToString():
                return wrong
        return None


def mistake(
    name: str,
    description: str,
    fits: Fits = anywhere,
    *,
    everywhere: bool = False,
    benign_in: tuple[tuple[str, str], ...] = (),
    **steps: Any,
) -> None:
    """Register a fold whose recipe has these steps replaced."""
    wrong = Mistake(name, Recipe(**steps), fits, everywhere)
    register(Fault(name, description, wrong, benign_in=benign_in))


def only(channel: int, data: Array, factor: float) -> Array:
    """A copy with one entry multiplied."""
    data = data.copy()
    data[channel] *= factor
    return data


def one_gain(rank: int, factor: float) -> Callable[[Stats], Stats]:
    """The scale of one living channel multiplied; they are ranked from the strongest to the faintest."""
    return lambda stats: replace(stats, scale=only(stats.live[rank], stats.scale, factor))


def epsilon(number: float) -> Callable[[Stats], Stats]:
    """Another epsilon."""
    return lambda stats: replace(stats, epsilon=number)


def biased(_place: Place, layer: Layer, _stats: Stats) -> bool:
    """For mistakes with the bias that the layer already had."""
    return _place.is_behind and layer.bias is not None


def usual_epsilon(_place: Place, _layer: Layer, stats: Stats) -> bool:
    """For BatchNorms with the default epsilon."""
    return stats.epsilon < 1e-4


def other_epsilon(_place: Place, _layer: Layer, stats: Stats) -> bool:
    """For BatchNorms that set epsilon."""
    return stats.epsilon > 1e-4


def op(*ops: str) -> Fits:
    """For mistakes that one operator invites, behind it."""
    return lambda place, layer, _stats: place.is_behind and layer.op in ops
