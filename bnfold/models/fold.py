"""The workflow of ``inspect`` and ``fold``, the same for every format: plan, edit, stage, verify, publish."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnfold.io.destination import Destination
from bnfold.models.model import Model
from bnfold.models.rows import rows
from bnfold.options import FoldOptions, Format, PlanOptions
from bnfold.results.folding import Folding, Inspection, refuse_different
from bnfold.results.model import Written
from bnfold.rules.rule import NotRepresentable
from bnfold.timing import StageTimer


@np.errstate(invalid="ignore", over="ignore")
def inspect(model: Model, options: PlanOptions) -> Inspection:
    """Return where every BatchNorm of ``model`` would fold to, or why it is kept. Raises InputError."""
    with model.guarded():
        plans = model.prepare(options).plans
        return Inspection(model.info(), rows(plans), plans)


@np.errstate(invalid="ignore", over="ignore")
def fold(model: Model, destination: Destination, to: Format, options: FoldOptions, timer: StageTimer) -> Folding:
    """Fold ``model``, verify the result, write it.

    Weights are read once: whether they fit their types shows when they are written. If one does not (which is rare),
    all is done again, with that check first. Raises InputError, OutputError (Refused for a failed verification).
    """
    with model.guarded():
        try:
            return _fold(model, destination, to, options, timer, defer_range_checks=not destination.dry_run)
        except NotRepresentable:
            again = model.reloaded()
        return _fold(again, destination, to, options, timer, defer_range_checks=False)


def _fold(
    model: Model,
    destination: Destination,
    to: Format,
    options: FoldOptions,
    timer: StageTimer,
    *,
    defer_range_checks: bool,
) -> Folding:
    ready = model.prepare(options, defer_range_checks=defer_range_checks)
    timer.record("plan")
    found = Inspection(model.info(), rows(ready.plans, done=not destination.dry_run), ready.plans)
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
            refuse_different(model.name, folding)
        if destination.keep:
            return replace(folding, model=written.live())
        files.publish()
    timer.record("write")
    output = Written(str(destination.place or "-"), lambda: files.sha256)
    return replace(folding, output=output, data=(beside, files.written if changed else beside))
