"""The weights gate: recompute every folded tensor in float64 from the original and compare in ulps.

It proves the folded layers for all inputs, dead channels and errors below the noise included, which no
sampling can.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
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
from bnfold.verification.alignment import Alignment, layers_before
from bnfold.verification.alignment.reader import Reader
from bnfold.verification.results import GateResult, Judgement, LayerResult
from bnfold.verification.structure import folded_by_bnfold

EXACT = 0.5 + 1e-6
"""Ulps that a single rounding may cost: what bnfold's own folds are held to."""

OTHERS = 4.0
"""Ulps that a fold computed in the storage type may cost: what other tools' folds are held to."""


def check_weights(
    original: LoadedModel,
    folded: LoadedModel,
    found: Alignment | str,
    tolerance: float | None = None,
    *,
    replayed: bool = False,
) -> tuple[GateResult, list[LayerResult]]:
    """Judge every folded tensor. ``tolerance`` is in ulps; by default it depends on who folded.

    bnfold's own folds are replayed: the plan says what each tensor must be. Any other model's are compared with the
    original through the alignment (a sentence where there is none).
    """
    ours = folded_by_bnfold(folded)
    tolerance = (EXACT if ours else OTHERS) if tolerance is None else tolerance
    layers: list[LayerResult] = []
    missing: list[str] = []
    if ours:
        layers, missing = _replayed(original, folded, tolerance)
    if not ours or missing:
        if isinstance(found, str):
            return GateResult("weights", "undecided", found), layers
        seen = {layer.node for layer in layers}
        allowed = max(tolerance, OTHERS if ours else 0.0)
        layers += [layer for layer in _aligned(found, allowed) if layer.node not in seen]
        missing = [parting.name for parting in found.partings if parting.kind != "numbers"]
    if not isinstance(found, str) and not (replayed and not missing):
        layers += _parted(found, layers) + ([] if ours else _moved_statistics(found))
    return _judged(layers, missing, tolerance), layers


def _judged(layers: list[LayerResult], missing: list[str], tolerance: float) -> GateResult:
    ulps = [layer.max_ulp for layer in layers if layer.max_ulp is not None]
    figures = {"tensors": len(layers), "max_ulp": max(ulps, default=0.0), "tolerance": tolerance}
    wrong = [layer for layer in layers if layer.verdict == "fail"]
    if wrong:
        worst = max(wrong, key=lambda layer: np.inf if layer.max_ulp is None else layer.max_ulp)
        by = "" if worst.max_ulp is None else f" by {worst.max_ulp:.3g} ulps"
        count = len(worst.channels)
        channels = f" in {count} channel{'' if count == 1 else 's'}" if count else ""
        return GateResult("weights", "fail", f"{worst.name} is off{by}{channels}", figures)
    if missing:
        detail = f"no counterpart could be recomputed for {missing[0]} ({len(missing)} in all)"
        return GateResult("weights", "undecided", detail, figures)
    if not layers:
        return GateResult("weights", "pass", "no tensor was folded", figures)
    tensors = f"{len(layers)} folded tensor{'' if len(layers) == 1 else 's'}"
    detail = f"{tensors}, each within {figures['max_ulp']:.3g} ulp of the exact fold"
    return GateResult("weights", "pass", detail, figures)


def _aligned(found: Alignment, tolerance: float) -> list[LayerResult]:
    """Each folded layer as the alignment sees it."""
    results = []
    for tensor in found.tensors:
        worst = float(tensor.ulps.max(initial=0.0))
        if worst == 0:
            continue
        allowed = 0.0 if tensor.plain else tolerance
        channels = [int(channel) for channel in np.flatnonzero(tensor.ulps > allowed)]
        largest = float(tensor.differences[np.isfinite(tensor.differences)].max(initial=0.0))
        verdict: Judgement = "pass" if worst <= allowed else "fail"
        name = f"{tensor.node.op} {tensor.node.name!r}"
        results.append(LayerResult(name, None, largest, worst, channels, "weights", verdict, tensor.node.name))
    return results


def _parted(found: Alignment, known: list[LayerResult]) -> list[LayerResult]:
    """Numbers that are none of the original's, where no tensor was measured: said with the layer before them."""
    failing = {layer.node for layer in known if layer.verdict == "fail"}
    results = []
    for parting in found.partings:
        if parting.kind != "numbers":
            continue
        before = {node.name: node for node in layers_before(parting.node)}
        if not failing & before.keys():
            node = next(iter(before.values()), parting.node)
            name = f"{node.op} {node.name!r} (seen by {parting.name})"
            results.append(LayerResult(name, None, None, None, parting.channels, "weights", "fail", node.name))
    if not found.partings:
        for output, channels in found.wrong_outputs.items():
            if channels is not None and not failing:
                results.append(LayerResult(f"output {output!r}", None, None, None, channels, "weights", "fail"))
    return results


def _moved_statistics(found: Alignment) -> list[LayerResult]:
    """BatchNorms that stayed and have other parameters: no tool but bnfold folds into them."""

    def parameters(reader: Reader, node: Node) -> Hashable:
        constants = node.graph.constants
        held = (value for value in node.inputs[1:5] if value is not None)
        return np.float32(node.attr("epsilon", 1e-5)), tuple(
            reader.form(v).base if constants.is_constant(v) else None for v in held
        )

    known = {
        parameters(found.original, node)
        for scope in found.original.graphs.scopes
        for node in scope.nodes
        if node.op == "BatchNormalization"
    }
    return [
        LayerResult(f"BatchNormalization {node.name!r}", None, None, None, [], "weights", "fail", node.name)
        for scope in found.folded.graphs.scopes
        for node in scope.nodes
        if node.op == "BatchNormalization" and parameters(found.folded, node) not in known
    ]


def _replayed(original: LoadedModel, folded: LoadedModel, tolerance: float) -> tuple[list[LayerResult], list[str]]:
    """Fold again what is gone from the original, and compare; also what could not be found."""
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
                verdict: Judgement = "pass" if found.max_ulp is not None and found.max_ulp <= tolerance else "fail"
                layers.append(replace(found, verdict=verdict))
    return layers, missing


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
            yield (
                name
                if actual is None or twin is None or actual.shape != values.shape
                else _layer(name, values, actual, twin.name)
            )
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
            yield (
                name
                if actual is None or twin is None or actual.shape != values.shape
                else _layer(name, values, actual, twin.name)
            )
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


def _layer(name: str, expected: NDArray[np.float64], actual: NDArray[Any], node: str | None = None) -> LayerResult:
    """Distance in ulps of the stored type at the exact value; NaN and infinity count as infinitely far."""
    stored = actual.astype(np.float64)
    error = np.abs(stored - expected)
    ulps = error / ulp(expected, actual.dtype)
    ulps = np.where(np.isfinite(ulps), ulps, np.inf)
    rows = ulps.reshape(ulps.shape[0], -1) if ulps.ndim else ulps.reshape(1, 1)
    worst = rows.max(axis=1, initial=0.0)
    channels = [int(i) for i in np.flatnonzero(worst > EXACT)]
    finite = error[np.isfinite(error)]
    return LayerResult(name, None, float(finite.max(initial=0.0)), float(ulps.max(initial=0.0)), channels, node=node)
