"""Open a model, whatever it is: a path, a live object; ONNX, a program of torch. What it needs is imported now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError, UsageError
from bnfold.io.source import FileSource

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.export import ExportedProgram

    from bnfold.frontends.torch.load import LoadedProgram
    from bnfold.io.load import LoadedModel
    from bnfold.io.sniff import Kind
    from bnfold.options import FoldOptions

    Model = str | Path | ModelProto | ExportedProgram | nn.Module


def load_any(
    model: Model, options: FoldOptions, example_inputs: Sequence[Any] | None = None
) -> LoadedModel | LoadedProgram:
    """The model. Raises InputError for what can't be read, UsageError for what is no model."""
    if isinstance(model, str | Path):
        return _file(model, options)
    from onnx import ModelProto

    if isinstance(model, ModelProto):
        from bnfold.io.load import load_bytes

        return load_bytes(model.SerializeToString())
    from bnfold.frontends.torch.live import from_live, is_live

    if is_live(model):
        return from_live(model, example_inputs)
    raise UsageError(f"a {type(model).__name__} is no model", "give a path, a ModelProto, a program or a module")


def _file(model: str | Path, options: FoldOptions) -> LoadedModel | LoadedProgram:
    """A model file. It is digested while what reads it is imported."""
    if str(model) == "-":
        from bnfold.io.load import load

        return load(model)
    source = FileSource(Path(model))
    source.hash_ahead()
    kind = kind_of_source(source)
    if kind == "onnx":
        from bnfold.io.load import parsed

        return parsed(source, Path(model))
    from bnfold.frontends.torch.load import load_program

    if kind == "pt2":
        return load_program(Path(model))
    if options.unsafe_shapes is None:
        from bnfold.io.load import KINDS

        raise InputError(
            f"{model}: {KINDS[kind]}: loading it runs what it holds",
            "give the .pt2 that torch.export.save wrote; or, if you trust it, --allow-unsafe-load and --shape",
        )
    from bnfold.frontends.torch.unsafe import load_unsafe

    return load_unsafe(Path(model), options.unsafe_shapes)


def kind_of_source(source: FileSource) -> Kind:
    """What a file is, by its content; only what may be torch's is read whole for that. Raises InputError."""
    from bnfold.io.sniff import kind_of, may_be_torch

    head = source.read(0, min(16, source.size))
    return kind_of(source.read(0, source.size), source.name) if may_be_torch(head) else "onnx"


def find_original(folded: Path) -> Path:
    """The file that ``fold`` made ``folded`` from, if it is still there and unchanged. Raises InputError."""
    name, digest = noted_source(folded)
    if not name or not digest:
        raise InputError(f"{folded}: it does not say what it was folded from", "name the original too")
    path = folded.parent / Path(name).name
    if not path.is_file() or path.samefile(folded):
        raise InputError(f"{folded}: its original {name!r} is not beside it", "name the original too")
    if FileSource(path).sha256 != digest:
        raise InputError(f"{path}: it has changed since {folded.name} was folded from it", "fold it again")
    return path


def noted_source(folded: Path) -> tuple[str | None, str | None]:
    """Name and sha256 of what a model was folded from, as it says itself."""
    if kind_of_source(FileSource(folded)) == "onnx":
        from bnfold.io.load import load
        from bnfold.io.provenance import SOURCE, SOURCE_DIGEST, provenance_of

        entries = provenance_of(load(folded).proto)
        return entries.get(SOURCE), entries.get(SOURCE_DIGEST)
    from bnfold.frontends.torch.load import load_program
    from bnfold.frontends.torch.save import provenance_of as provenance_of_program

    write_provenance = provenance_of_program(load_program(folded))
    return write_provenance.get("source"), write_provenance.get("source_sha256")
