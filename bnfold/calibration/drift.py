"""How far data lie from the statistics that a model holds: one pass over the data, nothing is changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.calibration.data import Batches, Data
from bnfold.calibration.measure import checked, in_one_pass
from bnfold.calibration.moments import Population
from bnfold.calibration.network import Network
from bnfold.results.calibration import Drift


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
    drift_of = {layer.node.output.name: Drift.between(layer, statistics) for layer, statistics in found.items()}
    return drift_of, batches.summary()
