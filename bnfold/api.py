"""The operations as a person thinks of them: inspect a model, fold it, verify a fold. Nothing here prints.

A model is a path, or a live object: an ONNX ModelProto, a torch ExportedProgram, an ``nn.Module`` with example inputs.
Torch is imported only for models of torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnx import ModelProto

from bnfold.clock import Clock
from bnfold.errors import InputError, OutputError, Refused, UsageError
from bnfold.files.external import external_tensors
from bnfold.files.load import KINDS, LoadedModel, load, load_bytes, read_file, read_head
from bnfold.files.save import External, Staged, staged
from bnfold.files.serialize import in_memory
from bnfold.files.sniff import Kind, kind_of, may_be_torch
from bnfold.pipeline import PlanOptions, prepare, rewrite
from bnfold.report.results import Comparison, Folding, Inspection, Written, onnx_info, refuse_different, rows
from bnfold.verification.results import Verification

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from bnfold.programs.load import LoadedProgram
    from bnfold.verification.judge import VerifyOptions

    Model = str | Path | ModelProto | ExportedProgram | nn.Module

__all__ = ["FoldOptions", "Refused", "VerifyOptions", "find_original", "fold", "inspect", "verify"]


def _verify_options() -> VerifyOptions:
    """The default, imported only where a model is to be verified."""
    from bnfold.verification.judge import VerifyOptions

    return VerifyOptions()


SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}


@dataclass(frozen=True)
class FoldOptions(PlanOptions):
    """How to plan, where weights go, how to verify (None: not at all), which format to write (None: the model's).

    ``unsafe_shapes`` allows to load TorchScript and pickled modules, which runs what they hold, in another process, and
    gives the shapes of their inputs, by any names, in order.
    """

    external: External = "auto"
    verify: VerifyOptions | None = field(default_factory=_verify_options)
    to: Literal["onnx", "pt2"] | None = None
    unsafe_shapes: Mapping[str, tuple[int, ...]] | None = None


def inspect(
    model: Model, options: FoldOptions | None = None, *, example_inputs: Sequence[Any] | None = None
) -> Inspection:
    """Where every BatchNorm of ``model`` would fold to, or why it stays. Changes nothing. Raises InputError.

    ``example_inputs`` are those that an ``nn.Module`` is exported with.
    """
    options = options or FoldOptions()
    original = _opened(model, options, example_inputs)
    if isinstance(original, LoadedModel):
        plans = prepare(original, options).plans
        return Inspection(onnx_info(original), rows(plans), plans)
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
    original = _opened(model, options, example_inputs)
    live = not isinstance(model, str | Path)
    clock.lap("load")
    if isinstance(original, LoadedModel):
        if options.to == "pt2":
            raise UsageError(f"{original.name}: ONNX can't become a program of torch", "leave out --to pt2")
        place = None if live and target is None else _target(original, target, "onnx", force or dry_run)
        return _fold_onnx(original, place, options, clock, dry_run=dry_run, keep=live and target is None)
    from bnfold.programs.workflow import fold_program

    to = options.to or "pt2"
    place = None if live and target is None else _target(original, target, to, force or dry_run)
    if place is None and not live:
        raise UsageError(f"{original.name}: a program is not written to standard output", "name a file with -o")
    return fold_program(
        original, place, options, options.verify, clock, to=to, external=options.external, dry_run=dry_run
    )


def verify(original: str | Path | None, folded: str | Path, options: VerifyOptions | None = None) -> Comparison:
    """Judge whether ``folded`` computes what ``original`` computes.

    Without an original it is found by what ``fold`` noted in the folded model. Raises InputError, UsageError.
    """
    from bnfold.verification.judge import verify_files

    options = options or _verify_options()
    notes: list[str] = []
    if original is None:
        original = find_original(Path(folded))
        notes.append(f"original: {original}, found by the provenance in {folded}")
    kinds = [_kind(Path(path)) for path in (original, folded)]
    if kinds[0] == "onnx":
        if kinds[1] != "onnx":
            raise UsageError(f"{folded} is a model of torch, {original} one of ONNX", "name the original first")
        verification, first, second = verify_files(Path(original), Path(folded), options)
        return Comparison(onnx_info(first), onnx_info(second), verification, notes)
    from bnfold.programs.load import load_program
    from bnfold.programs.workflow import verify_program

    found = verify_program(load_program(Path(original)), Path(folded), options, program=kinds[1] != "onnx")
    return replace(found, notes=notes)


def find_original(folded: Path) -> Path:
    """The file that ``fold`` made ``folded`` from, if it is still there and unchanged. Raises InputError."""
    name, digest = _noted_source(folded)
    if not name or not digest:
        raise InputError(f"{folded}: it does not say what it was folded from", "name the original too")
    path = folded.parent / Path(name).name
    if not path.is_file() or path.samefile(folded):
        raise InputError(f"{folded}: its original {name!r} is not beside it", "name the original too")
    if _sha256(path) != digest:
        raise InputError(f"{path}: it has changed since {folded.name} was folded from it", "fold it again")
    return path


def _noted_source(folded: Path) -> tuple[str | None, str | None]:
    """Name and sha256 of what a model was folded from, as it says itself."""
    if _kind(folded) == "onnx":
        entries = {entry.key: entry.value for entry in load(folded).proto.metadata_props}
        return entries.get("bnfold.source"), entries.get("bnfold.source_sha256")
    from bnfold.programs.load import load_program
    from bnfold.programs.save import note_of

    note = note_of(load_program(folded))
    return note.get("source"), note.get("source_sha256")


def _opened(
    model: Model, options: FoldOptions, example_inputs: Sequence[Any] | None = None
) -> LoadedModel | LoadedProgram:
    """The model, whatever it is. Raises InputError for what can't be read, UsageError for what is no model."""
    if isinstance(model, ModelProto):
        return load_bytes(model.SerializeToString())
    if not isinstance(model, str | Path):
        from bnfold.programs.live import from_live, is_live

        if is_live(model):
            return from_live(model, example_inputs)
        raise UsageError(f"a {type(model).__name__} is no model", "give a path, a ModelProto, a program or a module")
    kind = "onnx" if str(model) == "-" else _kind(Path(model))
    if kind == "onnx":
        return load(model)
    from bnfold.programs.load import load_program

    if kind == "pt2":
        return load_program(Path(model))
    if options.unsafe_shapes is None:
        raise InputError(
            f"{model}: {KINDS[kind]}: loading it runs what it holds",
            "give the .pt2 that torch.export.save wrote; or, if you trust it, --allow-unsafe-load and --shape",
        )
    from bnfold.programs.unsafe import load_unsafe

    return load_unsafe(Path(model), options.unsafe_shapes)


def _kind(path: Path) -> Kind:
    """What a file is, by its content; only what may be torch's is read whole for that."""
    return kind_of(read_file(path), str(path)) if may_be_torch(read_head(path)) else "onnx"


def _fold_onnx(
    original: LoadedModel, place: Path | None, options: FoldOptions, clock: Clock, *, dry_run: bool, keep: bool
) -> Folding:
    """Fold an ONNX model; with ``keep`` nothing is written, the folded model is in the result."""
    ready = prepare(original, options)
    clock.lap("plan")
    nodes, size = len(original.proto.graph.node), _total_bytes(original)
    inspection = Inspection(onnx_info(original), rows(ready.plans, done=not dry_run), ready.plans)
    folding = Folding(
        inspection, None, {"before": nodes, "after": nodes}, {"before": size, "after": size}, clock.seconds
    )
    folded, moved = rewrite(ready) if ready.changed else (original, frozenset[str]())
    folding.nodes["after"] = len(folded.proto.graph.node)
    clock.lap("fold")
    if dry_run:
        return folding
    with staged(folded, place, external=options.external, moved=moved, changed=ready.changed) as files:
        clock.lap("write")
        if ready.changed:
            folding.bytes["after"] = sum(path.stat().st_size for path in (files.model, *files.data))
            if options.verify is not None:
                verification = _verify_staged(original, files, options.verify)
                clock.lap("verify")
                folding = replace(folding, verification=verification)
                refuse_different(original.name, folding)
        if keep:
            return replace(folding, model=in_memory(folded.proto, folded.external))
        files.publish()
    clock.lap("write")
    return replace(folding, output=Written(str(place or "-"), lambda: files.sha256))


def _verify_staged(original: LoadedModel, files: Staged, options: VerifyOptions) -> Verification:
    from bnfold.verification.judge import verify_files

    if original.path is not None:
        return verify_files(original.path, files.model, options)[0]
    source = files.model.with_name("original.onnx")
    source.write_bytes(original.source.read(0, original.size))
    return verify_files(source, files.model, options)[0]


def _target(
    loaded: LoadedModel | LoadedProgram, target: str | Path | None, to: Literal["onnx", "pt2"], force: bool
) -> Path | None:
    """Where to write; None is standard output. Raises UsageError, OutputError."""
    if target is None and loaded.path is None:
        target = "-"
    if target is None:
        assert loaded.path is not None
        suffix = loaded.path.suffix if isinstance(loaded, LoadedModel) else SUFFIXES[to]
        target = loaded.path.with_name(f"{loaded.path.stem}.folded{suffix}")
    if str(target) == "-":
        return None
    path = Path(target)
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder", "name a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file", "name another")
        if path.exists() and not force:
            raise UsageError(f"{path}: exists already", "pass --force to replace it, or choose another place")
        external = loaded.external if isinstance(loaded, LoadedModel) else None
        tensors = external_tensors(loaded.proto) if isinstance(loaded, LoadedModel) else ()
        if external is not None and path.resolve() in {external.span(tensor).path for tensor in tensors}:
            raise UsageError(f"{path}: holds the weights of the model", "name another file")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _total_bytes(loaded: LoadedModel) -> int:
    spans = (loaded.external.span(tensor) for tensor in external_tensors(loaded.proto))
    return loaded.size + sum(span.length for span in spans)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
