"""From a loaded ONNX model to the folded one in memory: merge, inline, plan, rewrite. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

from onnx import ModelProto

from bnfold import __version__
from bnfold.errors import InputError, UsageError
from bnfold.frontends.onnx.editor import OnnxEditor
from bnfold.frontends.onnx.functions import batch_norms_inlined
from bnfold.frontends.onnx.graph import OnnxGraphs
from bnfold.io.load import LoadedModel
from bnfold.io.provenance import OPTIONS, SOURCE, SOURCE_DIGEST, VERSION, note
from bnfold.options import PlanOptions
from bnfold.planner.apply import Settled, settle, write, write_merge
from bnfold.planner.branch_merging import merges
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Kept


def _settle(
    loaded: LoadedModel, options: PlanOptions, trusting: bool = False
) -> tuple[OnnxGraphs, list[Settled], list[Plan]]:
    """Plan every graph of the model; calls of functions are inlined where that lets a BatchNorm fold.

    Also the plans to report: those of the inlined model, which shows what is inside the functions.
    """
    graphs, settled = _settle_proto(loaded, loaded.proto, options, trusting)
    trial = batch_norms_inlined(loaded.proto)
    if trial is None:
        return graphs, settled, [one.plan for one in settled]
    wider, more = _settle_proto(loaded, trial, options, trusting)
    plans = [one.plan for one in more]
    return (wider, more, plans) if _folds(more) > _folds(settled) else (graphs, settled, plans)


@dataclass(frozen=True)
class Prepared:
    """Everything decided, nothing written: the model (branches merged if asked), its graphs, the plans to report."""

    loaded: LoadedModel
    options: PlanOptions
    graphs: OnnxGraphs
    settled: list[Settled]
    plans: list[Plan]
    merged: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        """True if anything is to be written."""
        return bool(self.merged) or any(one.plan.folds for one in self.settled)


def prepare(loaded: LoadedModel, options: PlanOptions, *, trusting: bool = False) -> Prepared:
    """Merge if asked, then plan. A merged weight that a fold would change again is left unmerged: one rounding.

    ``trusting``: see :func:`bnfold.planner.apply.settle`.
    """
    apart: frozenset[str] = frozenset()
    if options.only or options.skip:
        check_names(_settle(loaded, options)[2], options)
    while options.merge:
        model, merged_plans, merged, moved = _merged(loaded, options, apart)
        graphs, settled, plans = _settle(model, options, trusting)
        changed = {node for one in settled for fold in one.plan.folds for node in fold.into}
        touched = {node.live_outputs[0].name for node in changed} & merged
        if not touched:
            return Prepared(model, options, graphs, settled, [*merged_plans, *plans], merged, moved)
        apart |= touched
    return Prepared(loaded, options, *_settle(loaded, options, trusting))


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
        outcomes: list[tuple[AffineOp, Fold | Kept]] = []
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


def _settle_proto(
    loaded: LoadedModel, proto: ModelProto, options: PlanOptions, trusting: bool
) -> tuple[OnnxGraphs, list[Settled]]:
    graphs = _graphs(loaded, proto, options)
    chosen = {name: getattr(options, name) for name in ("only", "skip", "scales", "threshold")}
    try:
        return graphs, [settle(graph, **chosen, trusting=trusting) for graph in graphs.scopes]
    except InputError as error:
        raise InputError(f"{loaded.name}: {error}", error.hint) from None


def _folds(settled: list[Settled]) -> int:
    return sum(len(one.plan.folds) for one in settled)


def rewrite(ready: Prepared) -> tuple[LoadedModel, frozenset[str]]:
    """Apply the plans, note where the model came from; also the names of tensors to keep outside the file."""
    loaded, graphs = ready.loaded, ready.graphs
    editor = OnnxEditor(graphs, loaded.external.defer)
    for one in ready.settled:
        for value in (value for value, map_ in one.plan.gauges.items() if not map_.is_identity):
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
    note(graphs.model, notes)
    return replace(loaded, proto=graphs.model), ready.moved | editor.moved
