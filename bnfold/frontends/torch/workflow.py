"""Inspect, fold and verify programs of torch: what :mod:`bnfold.api` does for ONNX models."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnfold.frontends.torch.convert import output_names, to_onnx
from bnfold.frontends.torch.load import LoadedProgram, load_program
from bnfold.frontends.torch.pipeline import calls, prepare_program, rewrite_program
from bnfold.frontends.torch.save import program_bytes, provenance_of
from bnfold.frontends.torch.verify import verify_converted, verify_programs
from bnfold.io.digests import DataFiles
from bnfold.io.folders import temporary
from bnfold.io.load import LoadedModel, load, read_file
from bnfold.io.provenance import PREFIX, SOURCE, SOURCE_DIGEST, write_provenance
from bnfold.io.save import Staged, staged, staged_bytes
from bnfold.options import External, Format, PlanOptions, VerifyOptions
from bnfold.results.folding import (
    Comparison,
    Folding,
    Inspection,
    ModelInfo,
    Written,
    onnx_info,
    refuse_different,
    rows,
)
from bnfold.results.verification import Verification
from bnfold.timing import StageTimer
from bnfold.verification.judge import refuse_swapped
from bnfold.version import __version__

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def program_info(loaded: LoadedProgram) -> ModelInfo:
    """What a report says of a program."""
    return ModelInfo(loaded.name, loaded.sha256, "pt2", None, None)


@np.errstate(invalid="ignore", over="ignore")
def inspect_program(loaded: LoadedProgram, options: PlanOptions) -> Inspection:
    """Where every BatchNorm would fold to, or why it stays."""
    plans = prepare_program(loaded, options).plans
    return Inspection(program_info(loaded), rows(plans), plans)


@np.errstate(invalid="ignore", over="ignore")
def fold_program(
    loaded: LoadedProgram,
    target: Path | None,
    options: PlanOptions,
    verify: VerifyOptions | None,
    timer: StageTimer,
    *,
    to: Format = "pt2",
    external: External = "auto",
    dry_run: bool = False,
    force: bool = False,
) -> Folding:
    """Fold a program, verify the result, write it to ``target`` (None: nowhere; the result is in ``Folding.model``).

    Raises InputError, OutputError (:class:`bnfold.errors.Refused` for a failed verification).
    """
    ready = prepare_program(loaded, options)
    timer.record("plan")
    found = Inspection(program_info(loaded), rows(ready.plans, done=not dry_run), ready.plans)
    nodes = dict.fromkeys(("before", "after"), calls(loaded.program))
    folding = Folding(found, None, nodes, dict.fromkeys(("before", "after"), loaded.size), timer.seconds)
    program = rewrite_program(ready) if ready.changed else loaded.program
    nodes["after"] = calls(program)
    timer.record("fold")
    if dry_run:
        return folding
    with temporary() as folder:
        place = target or folder / f"folded.{to}"
        with _written(loaded, program, options, place, to, external, force=force) as files:
            timer.record("write")
            folding.bytes["after"] = sum(path.stat().st_size for path in (files.model, *files.data))
            if verify is not None and (ready.changed or to == "onnx"):
                folding = replace(folding, verification=_judged(loaded, files.model, folder, verify, to))
                timer.record("verify")
                refuse_different(loaded.name, folding)
            if target is None:
                return replace(folding, model=program if to == "pt2" else load(files.model).proto)
            files.publish()
            timer.record("write")
            return replace(
                folding, output=Written(str(target), lambda: files.sha256), data=(DataFiles(), files.written)
            )


def verify_program(original: LoadedProgram, folded: Path, options: VerifyOptions, *, program: bool) -> Comparison:
    """Judge ``folded``, a ``.pt2`` (``program``) or an ONNX model, against the program."""
    with temporary() as folder:
        source = _on_disk(original, folder)
        if program:
            second = load_program(folded)
            refuse_swapped(original, provenance_of(original).get("source_sha256"), second)
            return Comparison(program_info(original), program_info(second), verify_programs(source, second, options))
        verification, model = verify_converted(source, folded, options)
        beside = DataFiles(), model.external.files()
        return Comparison(program_info(original), onnx_info(model), verification, data=beside)


def _written(
    loaded: LoadedProgram,
    program: ExportedProgram,
    options: PlanOptions,
    place: Path,
    to: Format,
    external: External,
    *,
    force: bool,
) -> AbstractContextManager[Staged]:
    """The program in a folder beside its place: one that was not changed keeps its bytes."""
    if to == "pt2":
        same = program is loaded.program and loaded.is_file and loaded.path is not None
        data = read_file(loaded.path) if same and loaded.path else program_bytes(program, loaded, options)
        return staged_bytes(data, place, replace=force)
    proto = to_onnx(program, loaded.name, output_names(loaded.program))
    source = {SOURCE: Path(loaded.name).name, SOURCE_DIGEST: loaded.sha256}
    write_provenance(proto, {PREFIX + "converted": __version__, **source})
    return staged(LoadedModel.of(proto), place, external=external, replace=force)


def _judged(loaded: LoadedProgram, folded: Path, folder: Path, options: VerifyOptions, to: Format) -> Verification:
    return verify_program(_on_disk(loaded, folder), folded, options, program=to == "pt2").verification


def _on_disk(loaded: LoadedProgram, folder: Path) -> LoadedProgram:
    """The program as a ``.pt2`` file, which another process can read."""
    if loaded.is_file:
        return loaded
    path = folder / "original.pt2"
    path.write_bytes(program_bytes(loaded.program, loaded))
    return replace(loaded, path=path, is_file=True)
