"""Faults of dead channels: their scale is 0, and the Relu behind their negative bias lets nothing through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from tests.wrong_folds.arithmetic import Place, layer_of, places, stats_of, store
from tests.wrong_folds.edits import copied, turned
from tests.wrong_folds.registry import Wrong, fault

Tensor = NDArray[Any]
Rows = Callable[[Tensor, Tensor, int], None]


def _in_dead_channel(original: ModelProto, correct: ModelProto, key: str, change: Rows) -> Wrong:
    """Change what belongs to a dead channel: its row of the weights, given as (outputs, …), and its bias."""
    for place in turned(key, _closed(original, correct)):
        wrong = copied(correct)
        layer = layer_of(wrong, place.layer)
        assert layer.bias is not None
        dead = int(np.flatnonzero(stats_of(original, place.bn).scale == 0)[0])
        seen, bias = layer.grouped().copy(), layer.bias.copy()
        rows = seen.reshape(bias.size, -1)
        change(rows, bias, dead)
        store(wrong, place.layer, replace(layer.with_grouped(rows.reshape(seen.shape)), bias=bias))
        return wrong
    return None


def _closed(original: ModelProto, correct: ModelProto) -> list[Place]:
    """The BatchNorms with a dead channel, which the Relu behind them closes."""
    return [place for place in places(original, correct) if (stats_of(original, place.bn).scale == 0).any()]


@fault()
def nan_in_dead_weight(original: ModelProto, correct: ModelProto) -> Wrong:
    """One NaN among the weights of a dead channel."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        weight[dead, 0] = np.nan

    return _in_dead_channel(original, correct, "nan", change)


@fault()
def dead_channel_opened(original: ModelProto, correct: ModelProto) -> Wrong:
    """The bias of a dead channel positive: the Relu behind it lets it through."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        bias[dead] *= -1

    return _in_dead_channel(original, correct, "opened", change)


@fault(silent=True)
def dead_bias_scaled(original: ModelProto, correct: ModelProto) -> Wrong:
    """The bias of a dead channel half as large again."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        bias[dead] *= 1.5

    return _in_dead_channel(original, correct, "scaled", change)


@fault(silent=True)
def dead_bias_infinite(original: ModelProto, correct: ModelProto) -> Wrong:
    """The bias of a dead channel −∞."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        bias[dead] = -np.inf

    return _in_dead_channel(original, correct, "infinite", change)


@fault(silent=True)
def dead_bias_lost(original: ModelProto, correct: ModelProto) -> Wrong:
    """The bias of a dead channel zero."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        bias[dead] = 0

    return _in_dead_channel(original, correct, "lost", change)


@fault(silent=True)
def dead_weights_revived(original: ModelProto, correct: ModelProto) -> Wrong:
    """The weights of a dead channel not zero but small: no input of a sane size opens the Relu behind them."""

    def change(weight: Tensor, bias: Tensor, dead: int) -> None:
        weight[dead] = np.abs(weight).max() * 1e-3

    return _in_dead_channel(original, correct, "revived", change)
