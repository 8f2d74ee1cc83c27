"""Load a model: a path or a live object, ONNX or a PyTorch exported program. What it needs is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError, UsageError
from bnfold.io.sniff import kind_of_source
from bnfold.io.source import FileSource

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.export import ExportedProgram

    from bnfold.io.load import LoadedModel
    from bnfold.models.model import Model

    Loadable = str | Path | ModelProto | ExportedProgram | nn.Module

UnsafeShapes = Mapping[str, tuple[int, ...]]
"""Shapes of the inputs of a TorchScript or pickled module, by any names, in order."""


def load_any(
    model: Loadable, unsafe_shapes: UnsafeShapes | None = None, example_inputs: Sequence[Any] | None = None
) -> Model:
    """Return the model. Raises InputError for what can't be read, UsageError for what is no model.

    ``unsafe_shapes`` allows to load TorchScript and pickled modules, which runs what they hold, in another process.
    """
    if isinstance(model, str | Path):
        return _file(model, unsafe_shapes)
    from onnx import ModelProto

    if isinstance(model, ModelProto):
        from bnfold.io.load import IN_MEMORY, load_bytes

        return _onnx(load_bytes(model.SerializeToString(), IN_MEMORY))
    from bnfold.frontends.torch.live import from_live, is_live

    if is_live(model):
        return _torch(from_live(model, example_inputs))
    raise UsageError(f"a {type(model).__name__} is no model", "give a path, a ModelProto, a program or a module")


def is_path(model: Loadable) -> bool:
    """Return True for a file, or standard input; False for a live object."""
    return isinstance(model, str | Path)


def _file(model: str | Path, unsafe_shapes: UnsafeShapes | None) -> Model:
    """A model file. It is digested while what reads it is imported."""
    if str(model) == "-":
        from bnfold.io.load import load

        return _onnx(load(model))
    source = FileSource(Path(model))
    source.hash_ahead()
    kind = kind_of_source(source)
    if kind == "onnx":
        from bnfold.io.load import parsed

        return _onnx(parsed(source, Path(model)))
    if kind == "pt2":
        from bnfold.frontends.torch.load import load_program

        return _torch(load_program(Path(model)))
    if unsafe_shapes is None:
        from bnfold.io.load import KINDS

        raise InputError(
            f"{model}: {KINDS[kind]}: loading it runs what it holds",
            "give the .pt2 that torch.export.save wrote; fold and inspect take --allow-unsafe-load and --shape",
        )
    from bnfold.models.unsafe import load_unsafe

    return _torch(load_unsafe(Path(model), unsafe_shapes))


def _onnx(loaded: LoadedModel) -> Model:
    from bnfold.frontends.onnx.fold import OnnxFoldable
    from bnfold.models.onnx import OnnxModel

    return OnnxModel(OnnxFoldable(loaded))


def _torch(loaded: Any) -> Model:
    from bnfold.frontends.torch.fold import TorchFoldable
    from bnfold.models.torch import TorchModel

    return TorchModel(TorchFoldable(loaded))


def find_original(folded: Path) -> Path:
    """Return the file that ``fold`` made ``folded`` from, if it is still there and unchanged. Raises InputError."""
    if str(folded) == "-":
        raise InputError("<stdin>: what was folded is not beside it", "name the original and the folded file")
    name, digest = load_any(folded).source()
    if not name or not digest:
        raise InputError(f"{folded}: it does not record which model it was folded from", "name the original too")
    path = folded.parent / Path(name).name
    if not path.is_file() or path.samefile(folded):
        raise InputError(f"{folded}: its original {name!r} is not beside it", "name the original too")
    if FileSource(path).sha256 != digest:
        raise InputError(f"{path}: it has changed since {folded.name} was folded from it", "fold it again")
    return path
