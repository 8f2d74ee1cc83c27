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
from bnfold.loading import find_original, is_path, load_any
from bnfold.options import CalibrateOptions, FoldOptions, VerifyOptions
from bnfold.timing import StageTimer

if TYPE_CHECKING:
    from bnfold.calibration.data import Data
    from bnfold.loading import Loadable
    from bnfold.results.calibration import Calibration
    from bnfold.results.folding import Folding, Inspection
    from bnfold.results.verification import Comparison

__all__ = [
    "CalibrateOptions",
    "FoldOptions",
    "Refused",
    "assert_equivalent",
    "calibrate",
    "find_original",
    "fold",
    "inspect",
    "verify",
]


def inspect(
    model: Loadable,
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
    >>> drifted = inspect("sample_models/digits_corrupted.onnx", data="sample_models/digits_train.npz")
    >>> drifted.rows[0].warnings, round(drifted.rows[0].drift.rms, 2)
    (['drift'], 0.81)
    """
    from bnfold.models import fold as workflow

    options = options or FoldOptions()
    original = load_any(model, options.unsafe_shapes, example_inputs)
    found = workflow.inspect(original, options)
    if data is None:
        return found
    from bnfold.calibration.drift import drifts

    return found.with_drifts(*drifts(original.reloaded().network(), data, batch))


def calibrate(
    model: Loadable,
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

    >>> result = calibrate("sample_models/digits_corrupted.onnx", "sample_models/digits_train.npz", "recalibrated.onnx")
    >>> result.calibrated, result.data["rows"]
    (3, 1437)
    """
    timer = StageTimer("load", "measure", "write")
    original = load_any(model, unsafe_shapes, example_inputs)
    from bnfold.models import calibrate as workflow

    timer.record("load")
    live = not is_path(model)
    destination = original.destination(
        target, original.format, mark="calibrated", live=live, force=force, dry_run=dry_run
    )
    return workflow.calibrate(original, destination, data, options or CalibrateOptions(), timer)


def fold(
    model: Loadable,
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
    original = load_any(model, options.unsafe_shapes, example_inputs)
    from bnfold.models import fold as workflow

    timer.record("load")
    to = original.output_format(options.to)
    live = not is_path(model)
    destination = original.destination(target, to, mark="folded", live=live, force=force, dry_run=dry_run)
    return workflow.fold(original, destination, to, options, timer)


def verify(
    original: Loadable | None,
    folded: Loadable,
    options: VerifyOptions | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
) -> Comparison:
    """Judge whether ``folded`` computes what ``original`` computes.

    Each is a path or a live object, as for :func:`fold`; modules are exported with ``example_inputs``. Without an
    original (None) it is found by the provenance metadata of the folded file. Raises InputError, UsageError.

    >>> _ = fold("sample_models/digits.onnx", "sample_models/digits.small.onnx")
    >>> found = verify(None, "sample_models/digits.small.onnx")
    >>> found.verdict, [check.check for check in found.verification.checks]
    ('equivalent', ['structure', 'weights', 'outputs'])
    >>> import onnx
    >>> model = onnx.load("sample_models/digits.onnx")
    >>> verify(model, fold(model).model).verdict
    'equivalent'
    """
    options = options or VerifyOptions()
    notes: list[str] = []
    if original is None:
        if not isinstance(folded, str | Path):
            raise UsageError("the original of a live object can't be found", "pass it as the first argument")
        original = find_original(Path(folded))
        notes.append(f"original: {original}, found by the provenance in {folded}")
    first = load_any(original, None, example_inputs)
    if isinstance(folded, str | Path):
        found = first.verify(Path(folded), options)
    else:
        second = load_any(folded, None, example_inputs)
        with second.staged(None, external="auto", changed=True, replace=False) as files:
            found = replace(first.verify(files.model, options), folded=second.info())
    return replace(found, original=found.original if is_path(original) else first.info(), notes=notes)


def assert_equivalent(
    original: Loadable,
    folded: Loadable,
    options: VerifyOptions | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
) -> None:
    """Raise AssertionError unless :func:`verify` calls the models equivalent: for tests of a pipeline.

    The error's text has each check's verdict and its reason.

    >>> assert_equivalent("sample_models/digits.onnx", "sample_models/digits.onnx")
    """
    found = verify(original, folded, options, example_inputs=example_inputs)
    if found.verdict != "equivalent":
        lines = (f"{check.check}: {check.verdict}, {check.detail}" for check in found.verification.checks)
        left = found.verification.left_open
        raise AssertionError("\n  ".join([f"the models are {found.verdict}", *lines, *([left] if left else [])]))
