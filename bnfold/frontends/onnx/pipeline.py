"""From a loaded ONNX model to the folded one in memory: merge, inline, plan, rewrite. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

from onnx import ModelProto

from bnfold.errors import InputError, UsageError
from bnfold.frontends.onnx.editor import OnnxEditor
from bnfold.frontends.onnx.functions import batch_norms_inlined
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import LoadedModel
from bnfold.io.provenance import OPTIONS, SOURCE, SOURCE_DIGEST, VERSION, write_provenance
from bnfold.options import PlanOptions
from bnfold.planner.apply import WeightedPlan, compute_weights, write, write_merge
from bnfold.planner.branch_merging import merges
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal
from bnfold.version import __version__


def _weighted(
    loaded: LoadedModel, options: PlanOptions, defer_range_checks: bool = False
) -> tuple[OnnxGraphs, list[WeightedPlan], list[Plan]]:
    """Plan every graph of the model; calls of functions are inlined where that lets a BatchNorm fold.

    Also the plans to report: those of the inlined model, which shows what is inside the functions.
    """
    graphs, weighted = _weighted_proto(loaded, loaded.proto, options, defer_range_checks)
    trial = batch_norms_inlined(loaded.proto)
    if trial is None:
        return graphs, weighted, [one.plan for one in weighted]
    wider, more = _weighted_proto(loaded, trial, options, defer_range_checks)
    plans = [one.plan for one in more]
    return (wider, more, plans) if _folds(more) > _folds(weighted) else (graphs, weighted, plans)


@dataclass(frozen=True)
class Prepared:
    """Everything decided, nothing written: the model (branches merged if asked), its graphs, the plans to report."""

    loaded: LoadedModel
    options: PlanOptions
    graphs: OnnxGraphs
    weighted: list[WeightedPlan]
    plans: list[Plan]
    merged: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        """True if anything is to be written."""
        return bool(self.merged) or any(one.plan.folds for one in self.weighted)


def prepare(loaded: LoadedModel, options: PlanOptions, *, defer_range_checks: bool = False) -> Prepared:
    """Merge if asked, then plan. A merged weight that a fold would change again is left unmerged: one rounding.

    ``trusting``: see :func:`bnfold.planner.apply.settle`.
    """
    apart: frozenset[str] = frozenset()
    if options.only or options.skip:
        check_names(_weighted(loaded, options)[2], options)
    while options.merge:
        model, merged_plans, merged, moved = _merged(loaded, options, apart)
        graphs, weighted, plans = _weighted(model, options, defer_range_checks)
        changed = {node for one in weighted for fold in one.plan.folds for node in fold.into}
        touched = {node.live_outputs[0].name for node in changed} & merged
        if not touched:
            return Prepared(model, options, graphs, weighted, [*merged_plans, *plans], merged, moved)
        apart |= touched
    return Prepared(loaded, options, *_weighted(loaded, options, defer_range_checks))


def _merged(
    loaded: LoadedModel, options: PlanOptions, apart: frozenset[str]
) -> tuple[LoadedModel, list[Plan], frozenset[str], frozenset[str]]:
    """The model with its branches merged, but for sums in ``apart``; plans to report, sums merged, tensors to move."""
    copy = ModelProto()
    copy.CopyFrom(loaded.proto)
    graphs = _graphs(loaded, copy, options)
    editor = OnnxEditor(graphs)
    plans, done = [], set()
    for scope in graphs.scopes:
        outcomes: list[tuple[AffineOp, Fold | Refusal]] = []
        for merge in merges(scope):
            if merge.target.name not in apart and write_merge(merge, editor) is None:
                editor.onlookers.change(merge.conv.output)
                done.add(merge.target.name)
                outcomes += [(op, Fold(op, "upstream", (merge.conv,), ("Add",))) for op in merge.ops]
        plans.append(Plan(scope, outcomes, {}))
    editor.finish()
    editor.onlookers.drop_training()
    return replace(loaded, proto=copy), plans, frozenset(done), frozenset(editor.moved)


def _graphs(loaded: LoadedModel, proto: ModelProto, options: PlanOptions) -> OnnxGraphs:
    try:
        return OnnxGraphs(proto, loaded.external, freeze=options.freeze)
    except InputError as error:
        raise InputError(f"{loaded.name}: {error}", error.hint) from None


def check_names(plans: list[Plan], options: PlanOptions) -> None:
    """Raise UsageError for a name in ``only`` or ``skip`` that no affine operator answers to."""
    known = [
        name for plan in plans for op, _ in plan.outcomes for node in op.nodes for name in (node.name, node.output.name)
    ]
    for name in (*options.only, *options.skip):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "inspect lists their names"
            raise UsageError(f"no BatchNorm is called {name!r}", hint)


def _weighted_proto(
    loaded: LoadedModel, proto: ModelProto, options: PlanOptions, defer_range_checks: bool
) -> tuple[OnnxGraphs, list[WeightedPlan]]:
    graphs = _graphs(loaded, proto, options)
    chosen = {name: getattr(options, name) for name in ("only", "skip", "scales", "threshold")}
    try:
        return graphs, [
            compute_weights(graph, **chosen, defer_range_checks=defer_range_checks) for graph in graphs.scopes
        ]
    except InputError as error:
        raise InputError(f"{loaded.name}: {error}", error.hint) from None


def _folds(weighted: list[WeightedPlan]) -> int:
    return sum(len(one.plan.folds) for one in weighted)


def rewrite(ready: Prepared) -> tuple[LoadedModel, frozenset[str]]:
    """Apply the plans, note where the model came from; also the names of tensors to keep outside the file."""
    loaded, graphs = ready.loaded, ready.graphs
    editor = OnnxEditor(graphs, loaded.external.defer)
    for one in ready.weighted:
        for value in (value for value, map_ in one.plan.transforms.items() if not map_.is_identity):
            editor.onlookers.change(value)
        write(one, editor)
    editor.finish()
    editor.onlookers.drop_training()
    notes = {
        VERSION: __version__,
        OPTIONS: ready.options.record(),
        SOURCE: "<stdin>" if loaded.path is None else loaded.path.name,
        SOURCE_DIGEST: loaded.sha256,
    }
    write_provenance(graphs.model, notes)
    return replace(loaded, proto=graphs.model), ready.moved | editor.moved
