"""The workflow of ``calibrate``, the same for every format: freeze, observe, edit, stage, publish."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bnfold.calibration.calibrate import freeze, observe, write_statistics
from bnfold.calibration.data import Data
from bnfold.io.destination import Destination
from bnfold.models.model import Model
from bnfold.options import CalibrateOptions
from bnfold.planner.prepare import Foldable
from bnfold.results.calibration import Calibration
from bnfold.results.model import Written
from bnfold.timing import StageTimer


@np.errstate(invalid="ignore", over="ignore")
def calibrate(
    model: Model, destination: Destination, data: Data, options: CalibrateOptions, timer: StageTimer
) -> Calibration:
    """Recompute the statistics of ``model`` over ``data`` and write it, unfolded.

    Raises InputError, InconclusiveError (it can't be run, or makes numbers that are not finite), OutputError.
    """
    with model.guarded():
        info = model.info()
        network = model.network(_frozen(model, options))
        found, batches = observe(network, data, options, model.convention, model.name)
        timer.record("measure")
        editor = network.source.editor(network.graphs)
        rows = write_statistics(network, found, editor)
        editor.finish()
        convention = options.convention or model.convention
        result = Calibration(
            info, rows, options.mode, options.momentum, convention, batches.summary(), seconds=timer.seconds
        )
        if destination.dry_run:
            return result
        calibrated = model.calibrated(network.source.edited(editor))
        if destination.keep:
            return replace(result, model=calibrated.live())
        with calibrated.staged(
            destination.place, external=options.external, changed=True, replace=destination.force
        ) as files:
            files.publish()
        timer.record("write")
        return replace(result, output=Written(str(destination.place or "-"), lambda: files.sha256))


def _frozen(model: Model, options: CalibrateOptions) -> Foldable[Any, Any]:
    """The model without layers in training mode, if that is wanted."""
    source = model.calibration_source()
    graphs = source.graphs()
    editor = source.editor(graphs)
    edited: Foldable[Any, Any] = source.edited(editor) if freeze(graphs, editor, model.name, options) else source
    return edited
