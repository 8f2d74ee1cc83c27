"""How far data lie from the statistics that a model holds: one pass over the data, nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.calibration.data import Batches, Data
from bnfold.calibration.layers import Layer
from bnfold.calibration.measure import checked, in_one_pass
from bnfold.calibration.moments import Population, distance
from bnfold.calibration.network import Network
from bnfold.frontends.onnx.functions import batch_norms_inlined
from bnfold.io.load import LoadedModel, parsed
from bnfold.numerics.batchnorm import Statistics
from bnfold.results.drift import Drift

if TYPE_CHECKING:
    from bnfold.frontends.torch.load import LoadedProgram


@np.errstate(invalid="ignore", over="ignore")
def drifts(
    original: LoadedModel | LoadedProgram, data: Data, batch: int | None
) -> tuple[dict[str, Drift], dict[str, Any] | None]:
    """The drift of every layer that can be observed, by the name of its output, and what of the data was used.

    Raises InputError, InconclusiveError.
    """
    network = _network(original)
    if not network.layers:
        return {}, None
    batches = Batches(data, network.inputs, batch)
    estimators = {layer: Population() for layer in network.layers}
    found = in_one_pass(network, batches, estimators)
    for layer, statistics in found.items():
        checked(layer, statistics)
    told = {layer.node.output.name: drift_of(layer, statistics) for layer, statistics in found.items()}
    return told, batches.told()


def drift_of(layer: Layer, found: Statistics) -> Drift:
    """Return how far data with the statistics ``found`` lie from those that a layer holds, per channel.

    A layer with statistics per position has an entry for each position of each channel.
    """
    bn = layer.stored
    return Drift(distance((bn.mean, bn.var), found, bn.epsilon).reshape(-1), found.count)


def _network(original: LoadedModel | LoadedProgram) -> Network:
    if isinstance(original, LoadedModel):
        from bnfold.calibration.onnx_network import OnnxNetwork

        again = parsed(original.source, original.path)  # planning may have changed what was loaded
        inlined = batch_norms_inlined(again.proto)
        return OnnxNetwork(again if inlined is None else replace(again, proto=inlined))
    from bnfold.calibration.torch_network import TorchNetwork, separated

    return TorchNetwork(replace(original, program=separated(original.program)))
