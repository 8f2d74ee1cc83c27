"""Write a model whole or not at all: into a staging folder beside the target, synced, then renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from onnx import ModelProto, TensorProto

from bnfold.errors import OutputError
from bnfold.files.external import ExternalData, Span, external_tensors, tensors_of
from bnfold.files.load import LIMIT, LoadedModel
from bnfold.files.serialize import fits, pieces

External = Literal["auto", "keep", "always", "never"]

SMALL = 1024
"""Bytes below which a tensor stays inside the model file."""

ALIGNMENT = 64
"""External tensors start at multiples of this many bytes."""

CHUNK = 2**24
"""Bytes copied at a time where the kernel can't copy by itself."""


@dataclass(frozen=True)
class Staged:
    """A complete model in a folder of its own, ready to be looked at and then to take its place."""

    model: Path
    sha256: str
    data: tuple[Path, ...]
    target: Path | None

    def publish(self) -> None:
        """Rename the files into place, data first; or write the model to standard output. Raises OutputError."""
        if self.target is None:
            with open(self.model, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with _output_errors(self.target):
            for path in self.data:
                place = self.target.parent / path.relative_to(self.model.parent)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
            if self.target.exists():
                os.chmod(self.model, self.target.stat().st_mode & 0o777)
            os.replace(self.model, self.target)
            _sync_folder(self.target.parent)


@contextlib.contextmanager
def staged(
    model: LoadedModel,
    target: Path | None,
    *,
    external: External = "auto",
    moved: frozenset[str] = frozenset(),
    changed: bool = True,
) -> Iterator[Staged]:
    """Write ``model.proto`` into a folder beside ``target`` (None: standard output); gone when the block ends.

    External tensors are streamed to one new data file named after the target, which never replaces an
    existing one; so do the tensors named in ``moved``. ``always`` moves all large tensors out, ``never``
    takes all in, ``auto`` leaves them where they are unless the model would not fit into one file. A model
    that is not ``changed`` is copied byte by byte, with its data files if the target lies elsewhere.
    """

    def fill(path: Path) -> tuple[str, tuple[Path, ...]]:
        if changed:
            return _write(model, path, target, external, moved)
        return model.sha256, _copy(model, path, target)

    with _staging(target, "model.onnx", fill) as files:
        yield files


@contextlib.contextmanager
def staged_bytes(data: bytes, target: Path) -> Iterator[Staged]:
    """Write a model that is one file into a folder beside ``target``; gone when the block ends."""

    def fill(path: Path) -> tuple[str, tuple[Path, ...]]:
        with open(path, "xb") as file:
            file.write(data)
            _sync(file)
        return hashlib.sha256(data).hexdigest(), ()

    with _staging(target, target.name, fill) as files:
        yield files


@contextlib.contextmanager
def _staging(target: Path | None, name: str, fill: Callable[[Path], tuple[str, tuple[Path, ...]]]) -> Iterator[Staged]:
    """A folder beside the target, filled, with the digest and the data files that ``fill`` gives."""
    name = name if target is None else target.name
    with contextlib.ExitStack() as stack:
        with _output_errors(target or Path(tempfile.gettempdir())):
            parent = None if target is None else target.parent
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".bnfold-", dir=parent))
        path = Path(folder) / name
        with _output_errors(target or path):
            digest, data = fill(path)
            os.chmod(path, 0o666 & ~_umask())
        yield Staged(path, digest, data, target)


def _write(
    model: LoadedModel, path: Path, target: Path | None, external: External, moved: frozenset[str]
) -> tuple[str, tuple[Path, ...]]:
    proto = model.proto
    if external == "never":
        _take_in(proto, model.external)
    outside = [tensor for tensor in tensors_of(proto) if _belongs_outside(tensor, external, moved)]
    if external == "auto" and not outside and not fits(proto):
        outside = [tensor for tensor in tensors_of(proto) if len(tensor.raw_data) >= SMALL]
    data: tuple[Path, ...] = ()
    if outside:
        if target is None:
            raise OutputError("external data can't be written to standard output", "use --external-data never")
        data = (path.with_name(_unused(target.with_name(target.name + ".data")).name),)
        with open(data[0], "xb") as file:
            for tensor in outside:
                _move_out(tensor, file, data[0].name, model.external)
            _sync(file)
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        for piece in pieces(proto):
            file.write(piece)
            digest.update(piece)
        _sync(file)
    return digest.hexdigest(), data


def _copy(model: LoadedModel, path: Path, target: Path | None) -> tuple[Path, ...]:
    """The model's own bytes, and its data files where the target lies in another folder."""
    with open(path, "xb") as file:
        file.write(model.bytes())
        _sync(file)
    copies = []
    for source in sorted({model.external.span(tensor).path for tensor in external_tensors(model.proto)}):
        assert model.external.folder is not None
        relative = source.relative_to(model.external.folder.resolve())
        if target is None or (target.parent / relative).resolve() == source:
            continue
        if (target.parent / relative).exists():
            raise OutputError(f"{target.parent / relative}: the model's data would replace it", "choose another folder")
        copy = path.parent / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open(copy, "xb") as data_file:
            _stream(Span(source, 0, source.stat().st_size), data_file)
            _sync(data_file)
        copies.append(copy)
    return tuple(copies)


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise OutputError(message, "check the folder, its permissions and its free space") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


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
    if tensor.data_location == TensorProto.EXTERNAL:
        return True
    return len(tensor.raw_data) >= SMALL and (external == "always" or tensor.name in moved)


def _unused(path: Path) -> Path:
    """``path``, or the first of ``path.1``, ``path.2`` … that does not exist: data in use is never replaced."""
    candidate, count = path, 0
    while candidate.exists():
        count += 1
        candidate = path.with_name(f"{path.name}.{count}")
    return candidate


def _move_out(tensor: TensorProto, file: IO[bytes], location: str, source: ExternalData) -> None:
    """Append a tensor's bytes to ``file`` and let the tensor point there."""
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    offset = file.tell()
    if tensor.data_location == TensorProto.EXTERNAL:
        _stream(source.span(tensor), file)
    else:
        file.write(tensor.raw_data)
        tensor.ClearField("raw_data")
    length = file.tell() - offset
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _stream(span: Span, target: IO[bytes]) -> None:
    """Copy a span of a file inside the kernel where it can, so that no weight passes through memory."""
    target.flush()
    with open(span.path, "rb") as source:
        offset, left = span.offset, span.length
        while left:
            if sys.platform == "linux":
                sent = os.sendfile(target.fileno(), source.fileno(), offset, min(left, 2**30))
            else:
                source.seek(offset)
                sent = target.write(source.read(min(left, CHUNK)))
                target.flush()
            if not sent:
                raise OutputError(f"{span.path}: the file has become shorter while it was read")
            offset, left = offset + sent, left - sent
    target.seek(0, os.SEEK_END)


def _take_in(proto: ModelProto, source: ExternalData) -> None:
    total = 0
    for tensor in external_tensors(proto):
        span = source.span(tensor)
        total += span.length
        if total > LIMIT:
            raise OutputError("the model does not fit into one file of 2 GiB", "keep its external data")
        with open(span.path, "rb") as file:
            file.seek(span.offset)
            tensor.raw_data = file.read(span.length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
