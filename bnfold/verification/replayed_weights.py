"""The weights of bnfold's own folds: fold the original again, and compare tensor by tensor with what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from bnfold.graph.onnx_functions import batch_norms_inlined
from bnfold.merge import merges
from bnfold.ops import lookup
from bnfold.plan import plan
from bnfold.verification.results import Judgement, LayerResult
from bnfold.weights import Scaled

EXACT = 0.5 + 1e-6
"""Ulps that a single rounding may cost: what bnfold's own folds are held to."""


def replayed_layers(
    original: LoadedModel, folded: LoadedModel, tolerance: float
) -> tuple[list[LayerResult], list[str]]:
    """Fold again what is gone from the original, and compare (``tolerance`` in ulps); also what could not be found."""
    frozen = len(folded.proto.graph.input) < len(original.proto.graph.input)
    after = {scope.name: scope for scope in OnnxGraphs(folded.proto, folded.external, freeze=True).scopes}
    source = original.proto
    if len(folded.proto.functions) < len(source.functions):
        source = batch_norms_inlined(source) or source
    before = OnnxGraphs(source, original.external, freeze=frozen).scopes
    layers: list[LayerResult] = []
    missing: list[str] = []
    for graph in before:
        if graph.name not in after:
            missing.append(f"graph {graph.name!r}")
            continue
        for found in _compare(graph, after[graph.name]):
            if isinstance(found, str):
                missing.append(found)
            else:
                verdict: Judgement = "pass" if found.max_ulp is not None and found.max_ulp <= tolerance else "fail"
                layers.append(replace(found, verdict=verdict))
    return layers, missing


def _compare(before: Graph, after: Graph) -> Iterator[LayerResult | str]:
    """Compare each constant that the folds of one graph change; a string names what has no counterpart."""
    standing = {(node.name, node.op) for node in after.nodes}
    producers = {value.name: node for node in after.nodes for value in node.live_outputs}
    merged = [merge for merge in merges(before) if all((n.name, n.op) not in standing for n in merge.nodes)]
    for merge in merged:
        twin = _maker(producers, [merge.target.name], "Conv")
        for index, values in ((1, merge.weight), (2, merge.bias)):
            yield _beside(f"Conv {merge.conv.name!r} input {index}, of merged branches", values, twin, index)
    explained = {op.target for merge in merged for op in merge.ops}
    gone = [op for op in affine_ops(before) if op.target not in explained and _is_gone(op, standing)]
    if gone:
        yield from _refolded(before, gone, producers)


def _refolded(before: Graph, gone: list[AffineOp], producers: dict[str, Node]) -> Iterator[LayerResult | str]:
    """Fold ``gone`` again, and compare each constant that this changes."""
    planned = plan(before, only=[op.target.name for op in gone], scales=True, threshold=True)
    heirs, alive = _heirs(planned), _alive(before)
    folded = {fold.op.target for fold in planned.folds}
    yield from (f"{op.name!r}, which bnfold would not fold" for op in gone if op.target not in folded)
    for node in planned.touched():
        rule = lookup(node.op)
        if rule is None or rule.rewrite is None:
            continue
        try:
            expected = rule.rewrite(node, planned.gauge).constants
        except NotEvaluable:
            continue
        for (owner, index), values in expected.items():
            twin = _maker(producers, heirs(owner.live_outputs[0]), owner.op)
            if twin is None and owner not in alive:
                continue  # a dead end goes with the operator that it ends in
            exact = values.array() if isinstance(values, Scaled) else values
            yield _beside(f"{owner.op} {owner.name!r} input {index}", exact, twin, index)
    for fold in planned.folds:
        if (stand_in := fold.stand_in) is not None:
            twin = _maker(producers, [stand_in.target.name], stand_in.op)
            level = stand_in.data(planned.gauge).shift.reshape(-1)
            yield _beside(f"the {stand_in.op} in place of {fold.op.name!r}", level, twin, 1, flat=True)


def _alive(graph: Graph) -> set[Node]:
    """The nodes on which an output depends, or a nested graph."""
    alive: set[Node] = set()
    pending = [value for node in graph.nodes for value in node.live_outputs if value.is_output or value.captured]
    while pending:
        node = pending.pop().producer
        if node is not None and node not in alive:
            alive.add(node)
            pending += [value for value in node.inputs if value is not None]
    return alive


def _maker(producers: dict[str, Node], names: Iterable[str], op: str) -> Node | None:
    """The ``op`` that makes one of ``names`` in the folded graph."""
    return next((producers[name] for name in names if name in producers and producers[name].op == op), None)


def _beside(
    name: str, expected: NDArray[np.float64], twin: Node | None, index: int, *, flat: bool = False
) -> LayerResult | str:
    """The constant that ``twin`` reads at ``index`` beside the exact one; ``name`` where there is none of its shape."""
    value = None if twin is None else twin.input(index)
    if twin is None or value is None or not twin.graph.constants.is_constant(value):
        return name
    actual = twin.graph.constants.evaluate(value)
    actual = actual.reshape(-1) if flat else actual
    return _layer(name, expected, actual, twin.name) if actual.shape == expected.shape else name


def _is_gone(op: AffineOp, standing: set[tuple[str, str]]) -> bool:
    """True unless every node of ``op`` still stands in the folded graph, under its name and operator."""
    return any((node.name, node.op) not in standing for node in op.nodes)


def _heirs(planned: Plan) -> Callable[[Value], Iterator[str]]:
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


def _layer(name: str, expected: NDArray[np.float64], actual: NDArray[Any], node: str | None = None) -> LayerResult:
    """Distance in ulps of the stored type at the exact value; NaN and infinity are near to nothing but themselves."""
    stored = actual.astype(np.float64)
    same = (stored == expected) | (np.isnan(stored) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(stored - expected))
        ulps = np.where(same, 0.0, error / ulp(expected, actual.dtype))
    ulps = np.where(np.isfinite(ulps), ulps, np.inf)
    rows = ulps.reshape(ulps.shape[0], -1) if ulps.ndim else ulps.reshape(1, 1)
    worst = rows.max(axis=1, initial=0.0)
    channels = [int(i) for i in np.flatnonzero(worst > EXACT)]
    finite = error[np.isfinite(error)]
    return LayerResult(name, None, float(finite.max(initial=0.0)), float(ulps.max(initial=0.0)), channels, node=node)
