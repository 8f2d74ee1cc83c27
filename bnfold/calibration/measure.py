"""Feed data through a network and estimate the statistics of each BatchNorm's input.

Two loops over the same levels: all batches through a level before the next one (``sequentially``: later layers see
what the earlier ones have become), or each batch through all levels (``in_one_pass``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bnfold.calibration.activation_cache import ActivationCache
from bnfold.calibration.data import Batch
from bnfold.calibration.layers import Layer
from bnfold.calibration.moments import Estimator, statistics_of
from bnfold.calibration.network import Fed, Network, Values
from bnfold.errors import InconclusiveError
from bnfold.numerics.batchnorm import Statistics
from bnfold.progress import report

Found = dict[Layer, Statistics]


def in_one_pass(
    network: Network,
    batches: Iterable[Batch],
    estimators: Mapping[Layer, Estimator],
    *,
    training: bool = False,
) -> Found:
    """Each batch through the whole network, which normalises by its stored statistics.

    In ``training``, and in layers that are in training mode, it normalises by those of the batch instead.
    """
    fed = stored(network)
    for count, batch in enumerate(batches):
        report(count, None, "batches")
        values: Values = dict(batch)
        for index, level in enumerate(network.levels):
            values = network.advance(index, values, fed)
            for layer in level.layers:
                found = observed(layer, values)
                estimators[layer].add(found)
                if training or layer.trains:
                    if not layer.holds(found.mean, found.var):
                        raise InconclusiveError(
                            f"the statistics of {layer.node.name!r} overflow its type on these data"
                        )
                    fed[layer] = found.mean, found.var
    return _results(estimators)


def sequentially(
    network: Network,
    batches: Iterable[Batch],
    estimators: Mapping[Layer, Estimator],
    folder: Path,
) -> Found:
    """All batches through one level after the other; what is found there holds for the levels above.

    What a level leaves waits in ``folder`` where it is too much for memory. The data are read once.
    """
    fed: dict[Layer, Fed] = {}
    waiting: Iterable[Values] = batches
    rows: int | None = None
    for index, level in enumerate(network.levels):
        left, count = ActivationCache(folder), 0
        for values in waiting:
            report(index * (rows or 0) + count, None if rows is None else rows * len(network.levels), level.label)
            made = network.advance(index, values, fed)
            for layer in level.layers:
                estimators[layer].add(observed(layer, made))
            if index + 1 < len(network.levels):
                left.add(made)
            count += 1
        network.release(index)
        rows = count
        for layer in level.layers:
            result = estimators[layer].result()
            fed[layer] = layer.stored.mean, layer.stored.var  # what it keeps if nothing better is found
            if result is not None:
                checked(layer, result)
                if layer.holds(result.mean, result.var):
                    fed[layer] = result.mean, result.var
        waiting = left
    return _results(estimators)


def stored(network: Network) -> dict[Layer, Fed]:
    """The statistics that the layers hold."""
    return {layer: (layer.stored.mean, layer.stored.var) for layer in network.layers}


def observed(layer: Layer, values: Values) -> Statistics:
    """The statistics of what a layer is fed. Raises InconclusiveError where it does not have the layer's channels."""
    x = values[layer.source.name]
    shape = layer.stored.mean.shape
    if x.ndim < 2 or x.shape[1 : 1 + len(shape)] != shape:
        raise InconclusiveError(
            f"the input of {layer.node.name!r} has shape {list(x.shape)}, its statistics {list(shape)}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        return statistics_of(x, layer.axes(x.ndim))


def checked(layer: Layer, found: Statistics) -> None:
    """Raise InconclusiveError for statistics that are not finite: nothing behind them means anything."""
    if not (np.isfinite(found.mean).all() and np.isfinite(found.var).all()):
        raise InconclusiveError(
            f"the input of {layer.node.name!r} is not finite on these data", "check the data, and the model's weights"
        )


def _results(estimators: Mapping[Layer, Estimator]) -> Found:
    found = {layer: estimator.result() for layer, estimator in estimators.items()}
    return {layer: result for layer, result in found.items() if result is not None}
