"""From a loaded program to the folded one in memory: merge, plan, rewrite. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bnfold.frontends.onnx.pipeline import check_names
from bnfold.frontends.torch.editor import TorchEditor
from bnfold.frontends.torch.graph import TorchGraphs
from bnfold.frontends.torch.load import LoadedProgram, quiet
from bnfold.options import PlanOptions
from bnfold.planner.apply import WeightedPlan, compute_weights, write, write_merge
from bnfold.planner.branch_merging import merges
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class PreparedProgram:
    """Everything decided, nothing written: the program (branches merged if asked), its graph, the plans to report."""

    loaded: LoadedProgram
    graphs: TorchGraphs
    weighted: WeightedPlan
    plans: list[Plan]
    merged: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        """True if anything is to be written."""
        return bool(self.merged or self.weighted.plan.folds)


def prepare_program(loaded: LoadedProgram, options: PlanOptions) -> PreparedProgram:
    """Merge if asked, then plan. A merged weight that a fold would change again is left unmerged: one rounding."""
    apart: frozenset[str] = frozenset()
    graphs, weighted = _weighted(loaded, options)
    if options.only or options.skip:
        check_names([weighted.plan], options)
    while options.merge:
        model, plan, merged = _merged(loaded, apart)
        graphs, weighted = _weighted(model, options)
        changed = {node for fold in weighted.plan.folds for node in fold.into}
        touched = {node.live_outputs[0].name for node in changed} & merged
        if not touched:
            return PreparedProgram(model, graphs, weighted, [plan, weighted.plan], merged)
        apart |= touched
    return PreparedProgram(loaded, graphs, weighted, [weighted.plan])


def _weighted(loaded: LoadedProgram, options: PlanOptions) -> tuple[TorchGraphs, WeightedPlan]:
    graphs = TorchGraphs(loaded.program)
    chosen = {name: getattr(options, name) for name in ("only", "skip", "scales", "threshold")}
    return graphs, compute_weights(graphs.graph, **chosen)


def _merged(loaded: LoadedProgram, apart: frozenset[str]) -> tuple[LoadedProgram, Plan, frozenset[str]]:
    """The program with its branches merged, but for sums in ``apart``; what to report, and the sums merged."""
    graphs = TorchGraphs(loaded.program)
    editor = TorchEditor(graphs)
    outcomes: list[tuple[AffineOp, Fold | Refusal]] = []
    done = set()
    for merge in merges(graphs.graph):
        name = graphs.fx_of[merge.conv.output].name
        if name not in apart and write_merge(merge, editor) is None:
            done.add(name)
            outcomes += [(op, Fold(op, "upstream", (merge.conv,), ("Add",))) for op in merge.ops]
    if done:
        editor.finish()
    return replace(loaded, program=editor.program), Plan(graphs.graph, outcomes, {}), frozenset(done)


def rewrite_program(ready: PreparedProgram) -> ExportedProgram:
    """Apply the plan: a new program, the one that was loaded is left as it is."""
    editor = TorchEditor(ready.graphs)
    write(ready.weighted, editor)
    with quiet():
        editor.finish()
    return editor.program


def calls(program: ExportedProgram) -> int:
    """How many operators a program calls."""
    return sum(node.op == "call_function" for node in program.graph.nodes)
