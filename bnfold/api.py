"""The operations as a person thinks of them: inspect a model, fold it, verify a fold. Nothing here prints.

A model is a path, or a live object: an ONNX ModelProto, a torch ExportedProgram, an ``nn.Module`` with example inputs.
Torch is imported only for models of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.clock import Clock
from bnfold.errors import Refused, UsageError
from bnfold.files.source import FileSource
from bnfold.opening import find_original, kind_of_source, opened
from bnfold.options import FoldOptions, default_verification

if TYPE_CHECKING:
    from bnfold.opening import Model
    from bnfold.report.results import Comparison, Folding, Inspection
    from bnfold.verification.judge import VerifyOptions

__all__ = ["FoldOptions", "Refused", "find_original", "fold", "inspect", "verify"]


def inspect(
    model: Model, options: FoldOptions | None = None, *, example_inputs: Sequence[Any] | None = None
) -> Inspection:
    """Where every BatchNorm of ``model`` would fold to, or why it stays. Changes nothing. Raises InputError.

    ``example_inputs`` are those that an ``nn.Module`` is exported with.
    """
    options = options or FoldOptions()
    original = opened(model, options, example_inputs)
    from bnfold.files.load import LoadedModel

    if isinstance(original, LoadedModel):
        from bnfold.workflow import inspect_onnx

        return inspect_onnx(original, options)
    from bnfold.programs.workflow import inspect_program

    return inspect_program(original, options)


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
    """
    options = options or FoldOptions()
    clock = Clock()
    original = opened(model, options, example_inputs)
    from bnfold.files.load import LoadedModel
    from bnfold.workflow import Goal, fold_onnx, target_of

    live = not isinstance(model, str | Path)
    clock.lap("load")
    if isinstance(original, LoadedModel):
        if options.to == "pt2":
            raise UsageError(f"{original.name}: ONNX can't become a program of torch", "leave out --to pt2")
        place = None if live and target is None else target_of(original, target, "onnx", force or dry_run)
        return fold_onnx(original, Goal(place, force, live and target is None, dry_run), options, clock)
    from bnfold.programs.workflow import fold_program

    to = options.to or "pt2"
    if to == "pt2" and options.to is None and str(target).endswith(".onnx"):
        raise UsageError(f"{target}: a program of torch is written as .pt2", "--to onnx makes an ONNX model of it")
    place = None if live and target is None else target_of(original, target, to, force or dry_run)
    if place is None and not live:
        raise UsageError(f"{original.name}: a program is not written to standard output", "name a file with -o")
    return fold_program(
        original, place, options, options.verify, clock, to=to, external=options.external, dry_run=dry_run, force=force
    )


def verify(original: str | Path | None, folded: str | Path, options: VerifyOptions | None = None) -> Comparison:
    """Judge whether ``folded`` computes what ``original`` computes.

    Without an original it is found by what ``fold`` noted in the folded model. Raises InputError, UsageError.
    """
    options = options or default_verification()
    notes: list[str] = []
    if original is None:
        original = find_original(Path(folded))
        notes.append(f"original: {original}, found by the provenance in {folded}")
    kinds = [kind_of_source(FileSource(Path(path))) for path in (original, folded)]
    if kinds[0] == "onnx":
        if kinds[1] != "onnx":
            raise UsageError(f"{folded} is a model of torch, {original} one of ONNX", "name the original first")
        from bnfold.report.results import Comparison, onnx_info
        from bnfold.verification.judge import verify_files

        verification, first, second = verify_files(Path(original), Path(folded), options)
        return Comparison(onnx_info(first), onnx_info(second), verification, notes)
    from bnfold.programs.load import load_program
    from bnfold.programs.workflow import verify_program

    found = verify_program(load_program(Path(original)), Path(folded), options, program=kinds[1] != "onnx")
    return replace(found, notes=notes)
