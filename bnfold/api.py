"""The operations as a person thinks of them: inspect a model, fold it, verify a fold. Nothing here prints.

A model is a path, or a live object: an ONNX ModelProto, a torch ExportedProgram, an ``nn.Module`` with example inputs.
Torch is imported only for models of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import Refused, UsageError
from bnfold.io.source import FileSource
from bnfold.loading import find_original, kind_of_source, load_any
from bnfold.options import CalibrateOptions, FoldOptions, VerifyOptions
from bnfold.timing import StageTimer

if TYPE_CHECKING:
    from bnfold.calibration.data import Data
    from bnfold.loading import Model
    from bnfold.options import Format
    from bnfold.results.calibration import Calibration
    from bnfold.results.folding import Comparison, Folding, Inspection

__all__ = ["CalibrateOptions", "FoldOptions", "Refused", "calibrate", "find_original", "fold", "inspect", "verify"]


def inspect(
    model: Model,
    options: FoldOptions | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
    data: Data | None = None,
    batch: int | None = None,
) -> Inspection:
    """Where every BatchNorm of ``model`` would fold to, or why it stays. Changes nothing. Raises InputError.

    ``example_inputs`` are those that an ``nn.Module`` is exported with. With ``data`` (as for :func:`calibrate`, in
    batches of ``batch`` rows) the model is run, and each BatchNorm's row tells how far its input has drifted.

    >>> found = inspect("sample_models/two_consumers.onnx")
    >>> found.foldable, found.kept
    (0, 1)
    >>> found.rows[0].reason["code"]
    'consumers'
    >>> drifted = inspect("sample_models/digits_spoilt.onnx", data="sample_models/digits_train.npz")
    >>> drifted.rows[0].warnings, round(drifted.rows[0].drift.rms, 2)
    (['drift'], 0.81)
    """
    options = options or FoldOptions()
    original = load_any(model, options, example_inputs)
    from bnfold.io.load import LoadedModel

    if isinstance(original, LoadedModel):
        from bnfold.frontends.onnx.workflow import inspect_onnx

        found = inspect_onnx(original, options)
    else:
        from bnfold.frontends.torch.workflow import inspect_program

        found = inspect_program(original, options)
    if data is None:
        return found
    from bnfold.calibration.drift import drifts

    return found.with_drifts(*drifts(original, data, batch))


def calibrate(
    model: Model,
    data: Data,
    target: str | Path | None = None,
    options: CalibrateOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    example_inputs: Sequence[Any] | None = None,
    unsafe_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Calibration:
    """Recompute the running statistics of every BatchNorm over ``data`` and write the model, unfolded.

    ``data`` is a path (``.npy``, ``.npz``, a folder of such), an array, arrays by input name, or an iterable of them,
    gone through once. The target is by default ``<name>.calibrated`` with the model's suffix; a live object
    is calibrated into a new one, ``Calibration.model``, unless a target is given.
    Raises InputError, InconclusiveError (the model can't be run, or makes numbers that are not finite), OutputError.

    >>> result = calibrate("sample_models/digits_spoilt.onnx", "sample_models/digits_train.npz", "mended.onnx")
    >>> result.calibrated, result.data["rows"]
    (3, 1437)
    """
    timer = StageTimer("load", "measure", "write")
    original = load_any(model, FoldOptions(verify=None, unsafe_shapes=unsafe_shapes), example_inputs)
    from bnfold.calibration.calibrate import calibrate_onnx, calibrate_program
    from bnfold.frontends.onnx.workflow import Goal, target_of
    from bnfold.io.load import LoadedModel

    timer.record("load")
    options = options or CalibrateOptions()
    keep = not isinstance(model, str | Path) and target is None
    kind: Format = "onnx" if isinstance(original, LoadedModel) else "pt2"
    place = None if keep else target_of(original, target, kind, force or dry_run, "calibrated")
    goal = Goal(place, force, keep, dry_run)
    if isinstance(original, LoadedModel):
        return calibrate_onnx(original, goal, data, options, timer)
    if place is None and not keep:
        raise UsageError(f"{original.name}: a program is not written to standard output", "name a file with -o")
    return calibrate_program(original, goal, data, options, timer)


def fold(
    model: Model,
    target: str | Path | None = None,
    options: FoldOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    example_inputs: Sequence[Any] | None = None,
) -> Folding:
    """Fold ``model`` and write it to ``target`` (by default beside it, as ``<name>.folded.onnx`` or ``.pt2``).

    A live object is folded into a new one, ``Folding.model``, unless a target is given. Verifies before it writes,
    unless ``options.verify`` is None; a result that fails is never written. Raises InputError, OutputError
    (:class:`bnfold.errors.Refused` for a failed verification), UsageError.

    >>> result = fold("sample_models/digits.onnx", "digits.folded.onnx")
    >>> result.verdict, result.nodes
    ('equivalent', {'before': 11, 'after': 8})
    >>> import onnx
    >>> live = fold(onnx.load("sample_models/digits.onnx"), options=FoldOptions(verify=None)).model
    >>> len(live.graph.node)
    8
    """
    options = options or FoldOptions()
    timer = StageTimer()
    original = load_any(model, options, example_inputs)
    from bnfold.frontends.onnx.workflow import Goal, fold_onnx, target_of
    from bnfold.io.load import LoadedModel

    live = not isinstance(model, str | Path)
    timer.record("load")
    if isinstance(original, LoadedModel):
        if options.to == "pt2":
            raise UsageError(f"{original.name}: ONNX can't become a program of torch", "leave out --to pt2")
        place = None if live and target is None else target_of(original, target, "onnx", force or dry_run)
        return fold_onnx(original, Goal(place, force, live and target is None, dry_run), options, timer)
    from bnfold.frontends.torch.workflow import fold_program

    to = options.to or "pt2"
    place = None if live and target is None else target_of(original, target, to, force or dry_run)
    if place is None and not live:
        raise UsageError(f"{original.name}: a program is not written to standard output", "name a file with -o")
    return fold_program(
        original, place, options, options.verify, timer, to=to, external=options.external, dry_run=dry_run, force=force
    )


def verify(original: str | Path | None, folded: str | Path, options: VerifyOptions | None = None) -> Comparison:
    """Judge whether ``folded`` computes what ``original`` computes.

    Without an original it is found by what ``fold`` noted in the folded model. Raises InputError, UsageError.

    >>> _ = fold("sample_models/digits.onnx", "sample_models/digits.small.onnx")
    >>> found = verify(None, "sample_models/digits.small.onnx")
    >>> found.verdict, [check.check for check in found.verification.checks]
    ('equivalent', ['structure', 'weights', 'layers', 'outputs'])
    """
    options = options or VerifyOptions()
    if not all(isinstance(path, str | Path) for path in (original or "", folded)):
        raise UsageError("verify takes the paths of two models", "write live ones to files first")
    notes: list[str] = []
    if original is None:
        original = find_original(Path(folded))
        notes.append(f"original: {original}, found by the provenance in {folded}")
    kinds = [kind_of_source(FileSource(Path(path))) for path in (original, folded)]
    if kinds[0] == "onnx":
        if kinds[1] != "onnx":
            raise UsageError(f"{folded} is a model of torch, {original} one of ONNX", "name the original first")
        from bnfold.frontends.onnx.verify import verify_files
        from bnfold.results.folding import Comparison, onnx_info

        verification, first, second = verify_files(Path(original), Path(folded), options)
        beside = first.external.files(), second.external.files()
        return Comparison(onnx_info(first), onnx_info(second), verification, notes, beside)
    from bnfold.frontends.torch.load import load_program
    from bnfold.frontends.torch.workflow import verify_program

    found = verify_program(load_program(Path(original)), Path(folded), options, program=kinds[1] != "onnx")
    return replace(found, notes=notes)
