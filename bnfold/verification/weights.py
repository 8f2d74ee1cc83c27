"""The weights gate: recompute every folded tensor in float64 from the original and compare in ulps.

It proves the folded layers for all inputs, dead channels and errors below the noise included, which no
sampling can. The folds are found by comparing the two models: what is missing in the folded one was folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import ulp
from bnfold.files.load import LoadedModel
from bnfold.find import AffineOp, affine_ops
from bnfold.folds import Plan
from bnfold.graph import Graph, Node, Value
from bnfold.graph.constants import NotEvaluable
from bnfold.graph.onnx import OnnxGraphs
from bnfold.graph.onnx_functions import inlined
from bnfold.merge import merges
from bnfold.ops import lookup
from bnfold.plan import plan
from bnfold.verification.results import GateResult, LayerResult

EXACT = 0.5 + 1e-6
"""Ulps that a single rounding may cost: what bnfold's own folds are held to."""

OTHERS = 4.0
"""Ulps that a fold computed in the storage type may cost: what other tools' folds are held to."""


def check_weights(
    original: LoadedModel, folded: LoadedModel, tolerance: float | None = None
) -> tuple[GateResult, list[LayerResult]]:
    """Judge every folded tensor. ``tolerance`` is in ulps; by default it depends on who folded."""
    if tolerance is None:
        ours = any(entry.key == "bnfold.version" for entry in folded.proto.metadata_props)
        tolerance = EXACT if ours else OTHERS
    frozen = len(folded.proto.graph.input) < len(original.proto.graph.input)
    after = {scope.name: scope for scope in OnnxGraphs(folded.proto, folded.external.read, freeze=True).scopes}
    source = original.proto
    if len(folded.proto.functions) < len(source.functions):
        source = inlined(source) or source
    before = OnnxGraphs(source, original.external.read, freeze=frozen).scopes
    layers: list[LayerResult] = []
    missing: list[str] = []
    for graph in before:
        if graph.name not in after:
            missing.append(f"graph {graph.name!r}")
            continue
        for found in _compare(graph, after[graph.name], folded):
            if isinstance(found, str):
                missing.append(found)
            else:
                layers.append(found)
    figures = {"tensors": len(layers), "max_ulp": max((x.max_ulp for x in layers), default=0.0), "tolerance": tolerance}
    wrong = [layer for layer in layers if not layer.max_ulp <= tolerance]
    if wrong:
        worst = max(wrong, key=lambda layer: np.nan_to_num(layer.max_ulp, nan=np.inf))
        detail = f"{worst.name} is off by {worst.max_ulp:.3g} ulps in {len(worst.channels)} channels"
        return GateResult("weights", "fail", detail, figures), layers
    if missing:
        detail = f"no counterpart could be recomputed for {missing[0]} ({len(missing)} in all)"
        return GateResult("weights", "undecided", detail, figures), layers
    if not layers and original.proto.graph != folded.proto.graph:
        detail = "nothing that was folded could be recognised in these two models"
        return GateResult("weights", "undecided", detail, figures), layers
    detail = f"{len(layers)} folded tensors, each within {figures['max_ulp']:.3g} ulp of the exact fold"
    return GateResult("weights", "pass", detail, figures), layers


def _compare(before: Graph, after: Graph, folded: LoadedModel) -> Iterator[LayerResult | str]:
    """Compare each constant that the folds of one graph change; a string names what has no counterpart."""
    standing = {(node.name, node.op) for node in after.nodes}
    producers = {value.name: node for node in after.nodes for value in node.live_outputs}
    merged = [merge for merge in merges(before) if all((n.name, n.op) not in standing for n in merge.nodes)]
    for merge in merged:
        twin = producers.get(merge.target.name)
        for index, values in ((1, merge.weight), (2, merge.bias)):
            actual = None if twin is None or twin.op != "Conv" else _constant(twin, index)
            name = f"Conv {merge.conv.name!r} input {index}, of merged branches"
            yield name if actual is None or actual.shape != values.shape else _layer(name, values, actual)
    explained = {op.target for merge in merged for op in merge.ops}
    gone = [op for op in affine_ops(before) if op.target not in explained and _is_gone(op, standing)]
    if not gone:
        return
    planned = plan(before, only=[op.target.name for op in gone], threshold=True)
    heirs = _heirs(planned)
    for fold_op in gone:
        if not any(fold.op.target is fold_op.target for fold in planned.folds):
            yield f"{fold_op.name!r}, which bnfold would not fold"
    for node in planned.touched():
        rule = lookup(node.op)
        if rule is None or rule.rewrite is None:
            continue
        try:
            expected = rule.rewrite(node, planned.gauge).constants
        except NotEvaluable:
            continue
        for (owner, index), values in expected.items():
            names = (name for name in heirs(owner.live_outputs[0]) if name in producers)
            twin = next((producers[name] for name in names if producers[name].op == owner.op), None)
            actual = None if twin is None else _constant(twin, index)
            name = f"{owner.op} {owner.name!r} input {index}"
            yield name if actual is None or actual.shape != values.shape else _layer(name, values, actual)
    for fold in planned.folds:
        if (stand_in := fold.stand_in) is not None:
            twin = producers.get(stand_in.target.name)
            actual = None if twin is None or twin.op != stand_in.op else _constant(twin, 1)
            name = f"the {stand_in.op} in place of {fold.op.name!r}"
            level = stand_in.data(planned.gauge).shift.reshape(-1)
            fits = actual is not None and actual.size == level.size
            yield _layer(name, level, actual.reshape(-1)) if fits and actual is not None else name


def _is_gone(op: AffineOp, standing: set[tuple[str, str]]) -> bool:
    """True unless every node of ``op`` still stands in the folded graph, under its name and operator."""
    return any((node.name, node.op) not in standing for node in op.nodes)


def _heirs(planned: Plan) -> Any:
    """A function from a value to the names under which the folded graph may carry it."""
    follows: dict[Value, list[Value]] = {}
    for fold in planned.folds:
        follows.setdefault(fold.op.source, []).append(fold.op.target)

    def names(value: Value) -> Iterator[str]:
        pending = [value]
        while pending:
            current = pending.pop()
            yield current.name
            pending.extend(follows.get(current, ()))

    return names


def _constant(node: Node, index: int) -> NDArray[Any] | None:
    value = node.input(index)
    constants = node.graph.constants
    return constants.evaluate(value) if value is not None and constants.is_constant(value) else None


def _layer(name: str, expected: NDArray[np.float64], actual: NDArray[Any]) -> LayerResult:
    """Distance in ulps of the stored type at the exact value; NaN and infinity count as infinitely far."""
    stored = actual.astype(np.float64)
    error = np.abs(stored - expected)
    ulps = error / ulp(expected, actual.dtype)
    ulps = np.where(np.isfinite(ulps), ulps, np.inf)
    rows = ulps.reshape(ulps.shape[0], -1) if ulps.ndim else ulps.reshape(1, 1)
    worst = rows.max(axis=1, initial=0.0)
    channels = [int(i) for i in np.flatnonzero(worst > EXACT)]
    finite = error[np.isfinite(error)]
    return LayerResult(name, None, float(finite.max(initial=0.0)), float(ulps.max(initial=0.0)), channels)
