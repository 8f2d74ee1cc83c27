"""Recalibrate BatchNorm statistics: observe a network over data, and write what was found into its layers."""

from __future__ import annotations

from dataclasses import replace

from bnfold.calibration.data import Batches, Data
from bnfold.calibration.drift import drift_of
from bnfold.calibration.layers import Layer
from bnfold.calibration.measure import Found, checked, in_one_pass, sequentially
from bnfold.calibration.moments import Estimator, MovingAverage, Population
from bnfold.calibration.network import Network
from bnfold.errors import InconclusiveError, InputError
from bnfold.io.folders import temporary
from bnfold.ir.graph import Editor, Graphs, Node
from bnfold.numerics.batchnorm import Momentum, Statistics
from bnfold.options import CalibrateOptions
from bnfold.planner.candidates import candidates_of
from bnfold.results.calibration import CalibratedRow
from bnfold.rules.normalization import in_training
from bnfold.rules.reasons import Refusal

FREEZE = "--freeze-training-mode makes inference operators of them, with the statistics of the data"


def freeze(graphs: Graphs, editor: Editor, name: str, options: CalibrateOptions) -> bool:
    """Make inference operators of the layers in training mode, if that is wanted; return whether there were any.

    Raises InputError for layers that train and may not be frozen: what they hold is not what they normalise by.
    """
    training = [node for node in graphs.scopes[0].nodes if node.op == "BatchNormalization" and in_training(node)]
    if training and not options.freeze:
        more = f" and {len(training) - 1} more are" if len(training) > 1 else " is"
        raise InputError(f"{name}: {training[0].name!r}{more} in training mode", FREEZE)
    frozen = [node for node in training if editor.freeze(node)]
    if len(frozen) < len(training):
        stuck = next(node for node in training if node not in frozen)
        raise InputError(
            f"{name}: {stuck.name!r} is in training mode, and its statistics are used or missing",
            "export the model in evaluation mode",
        )
    if frozen:
        editor.finish()
    return bool(frozen)


def observe(
    network: Network, data: Data, options: CalibrateOptions, kind: Momentum, name: str
) -> tuple[Found, Batches]:
    """Feed the data and return the new statistics of each layer. Raises InconclusiveError, InputError."""
    if not network.layers:
        why = f" ({network.kept[0][1].detail})" if network.kept else ""
        raise InconclusiveError(
            f"{name}: no BatchNorm whose statistics could be computed{why}",
            "exporters fold or decompose BatchNorms by default (docs/faq.md)",
        )
    batches = Batches(data, network.inputs, options.batch)
    estimators = {layer: _estimator(layer, options, kind) for layer in network.layers}
    if options.mode == "sequential":
        with temporary() as folder:
            found = sequentially(network, batches, estimators, folder)
    else:
        training = options.mode == "moving-average"
        found = in_one_pass(network, batches, estimators, training=training)
    for layer, statistics in found.items():
        checked(layer, statistics)
    return found, batches


def _estimator(layer: Layer, options: CalibrateOptions, kind: Momentum) -> Estimator:
    if options.mode != "moving-average":
        return Population()
    bn = layer.stored
    return MovingAverage(bn.mean, bn.var, options.momentum, options.convention or kind)


def write_statistics(network: Network, found: Found, editor: Editor) -> list[CalibratedRow]:
    """Put the statistics in their places, and return what became of every BatchNormalization."""
    written_out = _decomposed(network.graphs)
    rows = {}
    for layer in network.layers:
        rows[layer.node] = (
            _row(layer, found[layer], editor)
            if layer in found
            else _left(layer.node, Refusal("unknown-shape", "it was never fed a value"))
        )
    for node, refusal in network.kept:
        rows[node] = _left(node, refusal)
    order = [node for scope in network.graphs.scopes for node in scope.nodes if node in rows]
    return [rows[node] for node in order] + written_out


def _row(layer: Layer, found: Statistics, editor: Editor) -> CalibratedRow:
    bn, made = layer.stored, []
    types = [value.dtype for value in layer.node.inputs[3:5] if value is not None]
    if not layer.holds(found.mean, found.var):
        return _left(layer.node, Refusal("overflow", f"its statistics do not fit into {types[1]}"))
    for index, data, dtype in zip((3, 4), (found.mean, found.var), types, strict=True):
        made.append(data.astype(dtype))
        editor.overwrite(layer.node, index, made[-1])
    after = replace(bn, mean=made[0], var=made[1])
    return CalibratedRow(
        layer.node.name,
        layer.node.output.name,
        layer.node.graph.name or "main",
        "calibrated",
        len(bn.mean),
        drift_of(layer, found),
        after,
    )


def _left(node: Node, refusal: Refusal) -> CalibratedRow:
    reason = {"code": refusal.reason, "detail": refusal.detail}
    return CalibratedRow(node.name, node.output.name, node.graph.name or "main", "kept", reason=reason)


def _decomposed(graphs: Graphs) -> list[CalibratedRow]:
    """Written-out BatchNorms: their mean and variance are hidden in a factor and a term."""
    refusal = Refusal("decomposed", "it is written out as factors and terms, which hold no mean and no variance apart")
    ops = [op for scope in graphs.scopes for op in candidates_of(scope) if op.form == "decomposed"]
    return [replace(_left(op.nodes[-1], refusal), name=op.name) for op in ops]
