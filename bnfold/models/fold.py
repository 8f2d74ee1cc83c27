"""The workflow of ``inspect`` and ``fold``, the same for every format: plan, edit, stage, verify, publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bnfold.io.destination import Destination
from bnfold.models.alternatives import would_fold_with
from bnfold.models.dropping import explained, folds_at_fault
from bnfold.models.model import Model
from bnfold.models.rows import rows
from bnfold.options import FoldOptions, Format, PlanOptions
from bnfold.results.folding import Folding, Inspection, refuse_different
from bnfold.results.model import Written
from bnfold.rules.rule import NotRepresentable
from bnfold.timing import StageTimer

MOST_ATTEMPTS = 4
"""Times that a fold is made and verified: each check names all the layers that it finds wrong."""


@np.errstate(invalid="ignore", over="ignore")
def inspect(model: Model, options: PlanOptions) -> Inspection:
    """Return where every BatchNorm of ``model`` would fold to, or why it is kept. Raises InputError."""
    with model.guarded():
        plans = model.prepare(options).plans
        return Inspection(model.info(), rows(plans, False, would_fold_with(model.prepare, plans, options)), plans)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a fold.

    ``dropped`` are the folds to leave out, by their targets' names, each with what the verification found of it;
    ``failed`` is what the attempt before came to.
    """

    defer_range_checks: bool
    dropped: Mapping[str, str] = field(default_factory=dict)
    failed: Folding | None = None
    number: int = 1


class _Dropped(Exception):
    """Raised where the verification fails and names folds that can be left out."""

    def __init__(self, folds: Mapping[str, str], folding: Folding) -> None:
        super().__init__()
        self.folds, self.folding = folds, folding


@np.errstate(invalid="ignore", over="ignore")
def fold(model: Model, destination: Destination, to: Format, options: FoldOptions, timer: StageTimer) -> Folding:
    """Fold ``model``, verify the result, write it.

    Weights are read once: whether they fit their types shows when they are written. If one does not (which is rare),
    all is done again, with that check first. So it is where a check fails and names folded layers: without the folds
    that changed these, and verified again. Raises InputError, OutputError (Refused for a failed verification).
    """
    with model.guarded():
        attempt = Attempt(defer_range_checks=not destination.dry_run)
        while True:
            try:
                return _fold(model, destination, to, options, timer, attempt)
            except NotRepresentable:
                if not attempt.defer_range_checks:
                    raise
                attempt = replace(attempt, defer_range_checks=False)
            except _Dropped as error:
                dropped = {**attempt.dropped, **error.folds}
                attempt = Attempt(attempt.defer_range_checks, dropped, error.folding, attempt.number + 1)
            model = model.reloaded()


def _fold(
    model: Model, destination: Destination, to: Format, options: FoldOptions, timer: StageTimer, attempt: Attempt
) -> Folding:
    """Make one attempt. Raises NotRepresentable if weights don't fit and that was not checked, _Dropped."""
    if attempt.dropped:  # recorded with the other options: the fold can be made again from the file alone
        options = replace(options, skip=(*options.skip, *attempt.dropped))
    ready = model.prepare(options, defer_range_checks=attempt.defer_range_checks)
    if attempt.failed is not None and not ready.changed:
        refuse_different(model.name, attempt.failed)
    plans = explained(ready.plans, attempt.dropped)
    others = would_fold_with(model.prepare, plans, options)  # before the model is edited, maybe in place
    timer.record("plan")
    found = Inspection(model.info(), rows(plans, not destination.dry_run, others), plans)
    nodes, size, beside = model.node_count(), model.byte_size(), model.data_files()
    folded = model.rewritten(ready) if ready.changed else model.recorded(options)
    timer.record("fold")
    folding = Folding(
        found,
        None,
        {"before": nodes, "after": folded.node_count()},
        {"before": size, "after": size},
        timer.seconds,
        data=(beside, beside),
        notes=folded.notes,
    )
    if destination.dry_run:
        return folding
    changed = ready.changed or to != model.format
    written = folded if to == model.format else model.converted(folded, to)
    external = "auto" if destination.keep else options.external
    with written.staged(destination.place, external=external, changed=changed, replace=destination.force) as files:
        timer.record("write")
        if changed or written.has_no_bytes:
            after = sum(path.stat().st_size for path in (files.model, *files.data))
            folding = replace(folding, bytes={"before": size, "after": after})
        if changed and options.verify is not None:
            verification = model.verify(files.model, options.verify).verification
            timer.record("verify")
            folding = replace(folding, verification=verification)
            if verification.verdict == "different" and attempt.number < MOST_ATTEMPTS:
                named = folds_at_fault(ready.plans, verification)
                if named.keys() - attempt.dropped.keys():
                    raise _Dropped(named, folding)
            refuse_different(model.name, folding)
        if destination.keep:
            return replace(folding, model=written.live())
        files.publish()
    timer.record("write")
    output = Written(str(destination.place or "-"), lambda: files.sha256)
    return replace(folding, output=output, data=(beside, files.written if changed else beside))
