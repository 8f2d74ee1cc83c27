"""How far data lie from the statistics that a model holds: one pass over the data, nothing is changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.calibration.data import Batches, Data
from bnfold.calibration.layers import Layer
from bnfold.calibration.measure import checked, in_one_pass
from bnfold.calibration.moments import Population, distance
from bnfold.calibration.network import Network
from bnfold.numerics.batchnorm import Statistics
from bnfold.results.drift import Drift


@np.errstate(invalid="ignore", over="ignore")
def drifts(network: Network, data: Data, batch: int | None) -> tuple[dict[str, Drift], dict[str, Any] | None]:
    """Return the drift of every layer that can be observed, by the name of its output, and what data was used.

    Raises InputError, InconclusiveError.
    """
    if not network.layers:
        return {}, None
    batches = Batches(data, network.inputs, batch)
    estimators = {layer: Population() for layer in network.layers}
    found = in_one_pass(network, batches, estimators)
    for layer, statistics in found.items():
        checked(layer, statistics)
    drift_by_output = {layer.node.output.name: drift_of(layer, statistics) for layer, statistics in found.items()}
    return drift_by_output, batches.summary()


def drift_of(layer: Layer, found: Statistics) -> Drift:
    """Return how far data with the statistics ``found`` lie from those that a layer holds, per channel.

    A layer with statistics per position has an entry for each position of each channel.
    """
    bn = layer.stored
    return Drift(distance((bn.mean, bn.var), found, bn.epsilon).reshape(-1), found.count)
