"""Prepare a fold and apply it: merge branches if asked, plan, compute weights, edit. Once, for every frontend.

A frontend gives a :class:`Foldable`; nothing here is written to a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import UsageError
from bnfold.ir.graph import Editor, Graphs
from bnfold.numerics.rounding import rounded
from bnfold.options import PlanOptions
from bnfold.planner.apply import WeightedPlan, compute_weights, write, write_merge
from bnfold.planner.branch_merging import merges
from bnfold.planner.candidates import AffineOp
from bnfold.planner.plan import Fold, Plan
from bnfold.rules.reasons import Refusal

if TYPE_CHECKING:
    from typing_extensions import Self

G = TypeVar("G", bound=Graphs)
E = TypeVar("E", bound=Editor)
M = TypeVar("M", bound="Foldable[Any, Any]")


Exact = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Weight and bias of convolutions, by the names of their outputs, before they were rounded."""


class Foldable(Protocol[G, E]):
    """A model as preparing a fold needs it; each frontend has one. Its methods raise InputError."""

    def graphs(self, *, freeze: bool = False) -> G:
        """Return the graphs; with ``freeze`` initializers that are also graph inputs are constants."""

    def editor(self, graphs: G) -> E:
        """Return an editor of ``graphs``, which edits them in place or in a copy of its own."""

    def folded(self, editor: E) -> Self:
        """Return the model after the editor's last edit, without what a fold makes untrue."""

    def edited(self, editor: E) -> Self:
        """Return the model after edits that are no fold."""

    def duplicate(self) -> Self:
        """Return a copy whose edits leave this one as it is."""

    def inlined(self) -> Self | None:
        """Return the model with calls of functions that hold BatchNorms inlined; None if there are none."""

    def recorded(self, options: PlanOptions) -> Self:
        """Return the model with provenance metadata: bnfold's version, ``options``, the source and its sha256."""


@dataclass(frozen=True)
class Prepared(Generic[M]):
    """Everything decided, nothing edited: the model (branches merged if asked), its graphs, the plans to report."""

    model: M
    options: PlanOptions
    graphs: Graphs
    weighted: list[WeightedPlan]
    plans: list[Plan]
    merged: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        """True if the fold changes anything."""
        return bool(self.merged) or _folds(self) > 0


def prepare(model: M, options: PlanOptions, *, defer_range_checks: bool = False) -> Prepared[M]:
    """Merge branches if asked, then plan and compute weights.

    Folds go on from merged weights as they are in float64: one rounding. ``defer_range_checks``: see
    :func:`bnfold.planner.apply.compute_weights`. Raises InputError, and UsageError for names that nothing answers to.
    """
    if options.only or options.skip:
        _check_names(_planned(model, options, defer_range_checks).plans, options)
    if not options.merge:
        return _planned(model, options, defer_range_checks)
    merged, plans, exact = _merged(model, options)
    planned = _planned(merged, options, defer_range_checks, exact)
    return replace(planned, plans=[*plans, *planned.plans], merged=frozenset(exact))


def rewrite(ready: Prepared[M]) -> M:
    """Apply the plans; return the folded model with its provenance metadata.

    Raises NotRepresentable for a weight that does not fit its type, if that check was deferred.
    """
    editor = ready.model.editor(ready.graphs)
    for one in ready.weighted:
        for value, transform in one.plan.transforms.items():
            if not transform.is_identity:
                editor.mark_changed(value)
        write(one, editor)
    editor.finish()
    folded: M = ready.model.folded(editor)
    return folded.recorded(ready.options)


def _planned(model: M, options: PlanOptions, defer_range_checks: bool, exact: Exact | None = None) -> Prepared[M]:
    """Plan every graph of the model; calls of functions are inlined where that lets a BatchNorm fold.

    The plans to report are those of the inlined model, which shows what is inside the functions.
    """
    found = _weighted(model, options, defer_range_checks, exact or {})
    inlined = model.inlined()
    if inlined is None:
        return found
    wider: Prepared[M] = _weighted(inlined, options, defer_range_checks, exact or {})
    return wider if _folds(wider) > _folds(found) else replace(found, plans=wider.plans)


def _weighted(model: M, options: PlanOptions, defer_range_checks: bool, exact: Exact) -> Prepared[M]:
    graphs: Graphs = model.graphs(freeze=options.freeze)
    for node in (node for scope in graphs.scopes for node in scope.nodes):
        if node.op == "Conv" and node.live_outputs and (name := node.live_outputs[0].name) in exact:
            for value, data in zip(node.inputs[1:], exact[name], strict=False):
                if value is not None and value.tensor is not None and _holds(value.tensor(), data):
                    value.tensor = partial(np.asarray, data)
    chosen = {name: getattr(options, name) for name in ("only", "skip", "scales", "threshold")}
    weighted = [compute_weights(one, **chosen, defer_range_checks=defer_range_checks) for one in graphs.scopes]
    return Prepared(model, options, graphs, weighted, [one.plan for one in weighted])


def _holds(stored: NDArray[Any], data: NDArray[np.float64]) -> bool:
    """Return True if ``stored`` is ``data`` rounded: branches of an If may have convolutions of one name."""
    return np.array_equal(stored, rounded(data, stored.dtype))


def _merged(model: M, options: PlanOptions) -> tuple[M, list[Plan], Exact]:
    """The model with its branches merged, plans to report, and the weights of the convolutions that are left.

    A sum goes by both names that its convolution's output may have afterwards: which one stays is up to the editor.
    """
    copy: M = model.duplicate()
    graphs: Graphs = copy.graphs(freeze=options.freeze)
    editor = copy.editor(graphs)
    plans: list[Plan] = []
    exact: Exact = {}
    for scope in graphs.scopes:
        outcomes: list[tuple[AffineOp, Fold | Refusal]] = []
        for merge in merges(scope):
            names = merge.target.name, merge.conv.output.name
            skipped = any(op.answers_to(frozenset(options.skip)) for op in merge.ops)
            if not skipped and write_merge(merge, editor) is None:
                editor.mark_changed(merge.conv.output)
                exact |= dict.fromkeys(names, (merge.weight, merge.bias))
                outcomes += [(op, Fold(op, "upstream", (merge.conv,), ("Add",))) for op in merge.ops]
        plans.append(Plan(scope, outcomes, {}))
    if not exact:
        return model, plans, exact
    editor.finish()
    return copy.folded(editor), plans, exact


def _check_names(plans: list[Plan], options: PlanOptions) -> None:
    """Raise UsageError for a name in ``only`` or ``skip`` that no candidate answers to."""
    known = [
        name for plan in plans for op, _ in plan.outcomes for node in op.nodes for name in (node.name, node.output.name)
    ]
    for name in (*options.only, *options.skip):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "inspect lists their names"
            raise UsageError(f"no BatchNorm is called {name!r}", hint)


def _folds(prepared: Prepared[M]) -> int:
    return sum(len(one.plan.folds) for one in prepared.weighted)
