"""Write a model whole or not at all: into a staging folder beside the target, synced, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto

from bnfold.errors import OutputError
from bnfold.io.digests import DataFiles
from bnfold.io.external import ExternalData, byte_size, external_tensors, tensors_of
from bnfold.io.folders import note, temporary
from bnfold.io.load import LIMIT, LoadedModel
from bnfold.io.new_file import NewFile
from bnfold.io.serialize import chunks, parts_of
from bnfold.io.source import FileSource
from bnfold.io.tensor_data import Stored
from bnfold.io.wire import length
from bnfold.options import External

SMALL = 1024
"""Bytes below which a tensor stays inside the model file."""

ALIGNMENT = 64
"""External tensors start at multiples of this many bytes."""


@dataclass(frozen=True)
class Staged:
    """A complete model in a folder of its own, ready to be looked at and then to take its place.

    ``written`` are its ``data`` files, open, which goes on once they are published.
    """

    model: Path
    source: FileSource
    data: tuple[Path, ...]
    target: Path | None
    replace: bool
    written: DataFiles = field(default_factory=DataFiles)

    @property
    def sha256(self) -> str:
        """Of the model file, also once it is published; computed when it is asked for."""
        return self.source.sha256

    def publish(self) -> None:
        """Put the files into place, data first; or write the model to standard output.

        Raises OutputError; then nothing was put, and what stood there still stands.
        """
        if self.target is None:
            with open(self.model, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        done: list[Path] = []
        with _output_errors(self.target):
            if self.data:
                note(self.model.parent, self.model.name, self.data)
            try:
                for path in self.data:
                    place = self.target.parent / path.relative_to(self.model.parent)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    _put(path, place, replace=False)
                    done.append(place)
                if self.target.exists() and self.replace:
                    os.chmod(self.model, self.target.stat().st_mode & 0o777)
                _put(self.model, self.target, replace=self.replace)
            except BaseException:
                for place in done:
                    place.unlink()
                raise
            _sync_folder(self.target.parent)


def _put(path: Path, place: Path, *, replace: bool) -> None:
    """Give a file its place. Raises OSError; FileExistsError where something came there meanwhile."""
    if replace:
        os.replace(path, place)
        return
    try:
        os.link(path, place)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "came into being while this was computed", str(place)) from None
    except OSError:  # a file system without links
        if place.exists():
            raise FileExistsError(errno.EEXIST, "came into being while this was computed", str(place)) from None
        os.replace(path, place)
        return
    path.unlink()


@contextlib.contextmanager
def staged(
    model: LoadedModel,
    target: Path | None,
    *,
    external: External = "auto",
    moved: frozenset[str] = frozenset(),
    changed: bool = True,
    replace: bool = False,
) -> Iterator[Staged]:
    """Write ``model.proto`` into a folder beside ``target`` (None: standard output); gone when the block ends.

    External tensors are streamed to one new data file named after the target, which never replaces an
    existing one; so do the tensors named in ``moved``. ``always`` moves all large tensors out, ``never``
    takes all in, ``auto`` leaves them where they are unless the model would not fit into one file. A model
    that is not ``changed`` is copied byte by byte, with its data files if the target lies elsewhere.
    """

    def fill(path: Path) -> tuple[Path, ...]:
        """The model, and beside it its data."""
        data = _write(model, path, target, external, moved) if changed else _copy(model, path, target)
        model.source.check()
        model.external.check()
        return data

    with _staging(target, "model.onnx", fill, replace) as files:
        yield files


@contextlib.contextmanager
def staged_bytes(data: bytes, target: Path | None, *, replace: bool = False) -> Iterator[Staged]:
    """Write a model that is one file into a folder beside ``target``; gone when the block ends.

    Without a target it is not to be published.
    """

    def fill(path: Path) -> tuple[Path, ...]:
        """The model, which has no data beside it."""
        _write_file([data], path)
        return ()

    with _staging(target, "model.pt2", fill, replace) as files:
        yield files


@contextlib.contextmanager
def _staging(
    target: Path | None, name: str, fill: Callable[[Path], tuple[Path, ...]], replace: bool
) -> Iterator[Staged]:
    """A folder beside the target, filled, with the data files that ``fill`` gives."""
    name = name if target is None else target.name
    with contextlib.ExitStack() as stack:
        with _output_errors(target or Path(tempfile.gettempdir())):
            folder = stack.enter_context(temporary(None if target is None else target.parent))
        path = folder / name
        with _output_errors(target or path):
            data = fill(path)
            os.chmod(path, 0o666 & ~_umask())
        yield Staged(path, FileSource(path), data, target, replace, _handles(path, data, target))


def _handles(path: Path, data: tuple[Path, ...], target: Path | None) -> DataFiles:
    """The data files of a staged model, under the names that it gives them, and where they will lie."""
    names = {file.relative_to(path.parent).as_posix(): file for file in data}
    place = path.parent if target is None else target.parent
    return DataFiles({name: (FileSource(file), place / name) for name, file in names.items()})


def _write(
    model: LoadedModel, path: Path, target: Path | None, external: External, moved: frozenset[str]
) -> tuple[Path, ...]:
    proto = model.proto
    if external == "never":
        for tensor in external_tensors(proto):
            model.external.inline(tensor)
    outside = [tensor for tensor in tensors_of(proto) if _belongs_outside(tensor, external, moved)]
    if external == "auto" and not outside and length(parts_of(proto, model.external)) > LIMIT:
        outside = [tensor for tensor in tensors_of(proto) if _is_large(tensor)]
    data: tuple[Path, ...] = ()
    if outside:
        if target is None:
            raise OutputError("external data can't be written to standard output", "use --external-data never")
        data = (path.with_name(_unused(target.with_name(target.name + ".data")).name),)
        with NewFile(data[0]) as file:
            for tensor in outside:
                _move_out(tensor, file, data[0].name, model.external)
    parts = parts_of(proto, model.external)
    if length(parts) > LIMIT:
        raise OutputError("the model does not fit into one file of 2 GiB", "use --external-data always")
    _write_file(chunks(parts, model.external), path)
    return data


def _write_file(data: Iterable[bytes | memoryview], path: Path) -> None:
    with NewFile(path) as file:
        for chunk in data:
            file.write(chunk)


def _copy(model: LoadedModel, path: Path, target: Path | None) -> tuple[Path, ...]:
    """The model's own bytes, and its data files where the target lies in another folder."""
    _write_file(model.source.chunks(0, model.source.size), path)
    copies = []
    spans = [model.external.span(tensor) for tensor in external_tensors(model.proto)]
    for place, source in sorted({span.path: span.source for span in spans}.items()):
        assert model.external.folder is not None
        relative = place.relative_to(model.external.folder.resolve())
        if target is None or (target.parent / relative).resolve() == place:
            continue
        if (target.parent / relative).exists():
            raise OutputError(f"{target.parent / relative}: the model's data would replace it", "choose another folder")
        copy = path.parent / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        with NewFile(copy) as data_file:
            data_file.copy(Stored(source, 0, source.size))
        copies.append(copy)
    return tuple(copies)


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.parent.exists():
            raise OutputError(f"{path}: the folder {str(path.parent)!r} does not exist", "create it first") from None
        message = f"{path}: {error.strerror or error}"
        raise OutputError(message, "check the folder, its permissions and its free space") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _belongs_outside(tensor: TensorProto, external: External, moved: frozenset[str]) -> bool:
    if external == "never":
        return False
    return ExternalData.is_external(tensor) or (_is_large(tensor) and (external == "always" or tensor.name in moved))


def _is_large(tensor: TensorProto) -> bool:
    """Return True for a tensor whose bytes may as well lie in another file."""
    marked = tensor.data_location == TensorProto.EXTERNAL
    return (byte_size(tensor) if marked else len(tensor.raw_data)) >= SMALL


def _unused(path: Path) -> Path:
    """``path``, or the first of ``path.1``, ``path.2`` … that does not exist: data in use is never replaced."""
    candidate, count = path, 0
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}.{count}")
    return candidate


def _move_out(tensor: TensorProto, file: NewFile, location: str, source: ExternalData) -> None:
    """Append a tensor's bytes to ``file`` and let the tensor point there."""
    file.write(b"\0" * (-file.size % ALIGNMENT))
    offset = file.size
    if tensor.data_location != TensorProto.EXTERNAL:
        file.write(tensor.raw_data)
        tensor.ClearField("raw_data")
    elif isinstance(data := source.data(tensor), Stored):
        file.copy(data)
    else:
        for chunk in data.chunks():
            file.write(chunk)
    length = file.size - offset
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
