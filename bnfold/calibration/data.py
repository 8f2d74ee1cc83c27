"""The user's data as batches: arrays, files and folders of arrays, or anything that Python can iterate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import InputError, one_line, unreadable
from bnfold.wording import misfit_hint

Batch = dict[str, NDArray[Any]]

Data = str | Path | NDArray[Any] | Mapping[str, Any] | Iterable[Any]
"""A path, an array (for the only input), arrays by input name, or an iterable of such: each entry one batch."""

ROWS = 64
"""Rows of a batch, where the model leaves it free and the user does not say."""

LAYOUT = "give a .npy (the only input), a .npz (an array per input), or a folder of such"


OBJECTS = ("Python objects in dtype", "Object arrays cannot be loaded")
"""What numpy says of arrays of Python objects, mapped or read: they are pickles, which run what they hold."""


@dataclass(frozen=True)
class Input:
    """What a model takes: its name, its type, how many rows at once (None: any number), its shape where it is known.

    ``free`` says that the number of rows is declared, and that nothing depends on it.
    """

    name: str
    dtype: np.dtype[Any]
    rows: int | None
    shape: tuple[int | None, ...] | None = None
    free: bool = False


def freed(inputs: list[Input], free: Callable[[], bool]) -> list[Input]:
    """The same inputs, marked as free if all declare one number of rows, above 1, and ``free`` finds it to be so."""
    rows = {entry.rows for entry in inputs}
    if len(rows) != 1 or rows <= {None, 1} or not free():
        return inputs
    return [replace(entry, free=True) for entry in inputs]


class Batches:
    """The data as batches, once. ``rows`` counts what was given out, ``lost`` the rows that filled no batch.

    A chunk (a file, an entry of an iterable) of more rows than a batch is cut; one of fewer is a batch by itself. Where
    the model takes only one number of rows, what is left of a chunk waits for the next one; the last of it is lost. An
    input without rows, or with a fixed number of them beside one that takes any, is given whole with every batch.
    """

    def __init__(self, data: Data, inputs: Sequence[Input], rows: int | None = None) -> None:
        self.name = str(data) if isinstance(data, str | Path) else "<data>"
        free = any(entry.rows is None and entry.shape != () for entry in inputs)
        self._whole = {entry.name for entry in inputs if entry.shape == () or (free and entry.rows is not None)}
        fixed = {entry.rows for entry in inputs if entry.rows is not None and entry.name not in self._whole}
        declared = max(fixed, default=None) if all(entry.free for entry in inputs) else None
        if declared is not None:
            fixed = set()
        if rows is not None and fixed - {rows}:
            raise InputError(f"the model takes {fixed.pop()} rows at once, not {rows}", "leave out --batch-size")
        self._fixed = len(fixed) == 1
        self._size = fixed.pop() if self._fixed else rows or declared or ROWS
        self._left: Batch | None = None
        self._data, self._inputs = data, inputs
        self.rows = self.lost = self.count = 0

    def __iter__(self) -> Iterator[Batch]:
        """Each batch. Raises InputError for data that don't fit the model."""
        given = 0
        for where, chunk in _chunks(self._data, self._inputs):
            batch = {entry.name: self._checked(where, entry, chunk) for entry in self._inputs}
            counts = {len(array) for name, array in batch.items() if name not in self._whole} or {1}
            if len(counts) != 1:
                raise InputError(f"{where}: the inputs have different numbers of rows: {sorted(counts)}")
            rows = counts.pop()
            given += rows
            yield from self._joined(batch, rows)
        self.lost = given - self.rows
        if not self.rows and given:
            raise InputError(
                f"{self.name}: the model takes batches of {self._size} rows; the data have {given}",
                f"give at least {self._size} rows, or export the model with a free batch dimension",
            )
        if not self.rows:
            raise InputError(f"{self.name}: no data", LAYOUT)

    def _joined(self, batch: Batch, rows: int) -> Iterator[Batch]:
        """Yield what is left of the chunk before, filled up by this one; then the rest of it.

        What is given whole may differ between the two: then what is left stays without company.
        """
        left, self._left, start = self._left, None, 0
        if left is not None and all(np.array_equal(left[name], batch[name]) for name in self._whole):
            before = next(len(array) for name, array in left.items() if name not in self._whole)
            start = min(self._size - before, rows)
            filled = {
                name: array if name in self._whole else np.concatenate([left[name], array[:start]])
                for name, array in batch.items()
            }
            yield from self._cut(filled, before + start)
        if start < rows:
            yield from self._cut(batch, rows, start)

    def summary(self) -> dict[str, Any]:
        """Return what was used and what was not, as JSON; ``note`` has why, where rows are left out."""
        note = f"the model takes {self._size} rows at once: {self.lost} fill no batch and are left out"
        found = {"source": self.name, "rows": self.rows, "batches": self.count, "left_out": self.lost}
        return {**found, "note": note} if self.lost else found

    def _cut(self, batch: Batch, rows: int, first: int = 0) -> Iterator[Batch]:
        for start in range(first, rows, self._size):
            stop = min(start + self._size, rows)
            if self._fixed and stop - start < self._size:
                self._left = {
                    name: array if name in self._whole else np.array(array[start:]) for name, array in batch.items()
                }
                return
            self.rows += stop - start
            self.count += 1
            yield {
                entry.name: np.ascontiguousarray(
                    batch[entry.name] if entry.name in self._whole else batch[entry.name][start:stop], entry.dtype
                )
                for entry in self._inputs
            }

    def _checked(self, where: str, entry: Input, chunk: Mapping[str, Any]) -> NDArray[Any]:
        if entry.name not in chunk:
            raise InputError(f"{where}: nothing for the input {entry.name!r}", LAYOUT)
        array = _as_array(chunk[entry.name])
        if array.ndim < 1 and entry.shape != ():
            raise InputError(f"{where}: a single number for the input {entry.name!r}", LAYOUT)
        if array.dtype != entry.dtype and not (_is_float(array.dtype) and _is_float(entry.dtype)):
            raise InputError(
                f"{where}: the input {entry.name!r} takes {entry.dtype}, not {array.dtype}",
                misfit_hint(dtype=entry.dtype),
            )
        if entry.shape is not None and not _fits(array.shape, entry.shape, entry.name in self._whole):
            dims = ", ".join("any" if n is None else str(n) for n in entry.shape)
            hint = misfit_hint(array.shape, entry.shape)
            raise InputError(f"{where}: the input {entry.name!r} takes [{dims}], not {list(array.shape)}", hint)
        return array


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...], whole: bool) -> bool:
    """Return True if an array can be fed, in batches unless it is fed ``whole``."""
    rest = slice(None) if whole else slice(1, None)
    pairs = zip(shape[rest], declared[rest], strict=False)
    return len(shape) == len(declared) and all(wanted in (None, found) for found, wanted in pairs)


def _as_array(value: Any) -> NDArray[Any]:
    """Numpy's arrays and what turns into them, tensors of torch included."""
    if hasattr(value, "detach"):
        from bnfold.frontends.torch.tensors import to_numpy

        return to_numpy(value)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"<data>: no array: {error}") from None


def _chunks(data: Data, inputs: Sequence[Input]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = [entry.name for entry in inputs]
    if isinstance(data, str | Path):
        yield from _of_path(Path(data), names)
    elif isinstance(data, Mapping) or hasattr(data, "shape"):
        yield "<data>", _named(data, names, "<data>")
    elif not isinstance(data, Iterable):
        raise InputError(f"<data>: a {type(data).__name__} is no data", LAYOUT)
    else:
        for index, entry in enumerate(data):
            yield f"batch {index}", _named(entry, names, f"batch {index}")


def _named(entry: Any, names: list[str], where: str) -> Mapping[str, Any]:
    """One entry by input name: it is that already, or an array, or a tuple in the order of the inputs."""
    if isinstance(entry, Mapping):
        return entry
    parts = list(entry) if isinstance(entry, tuple | list) else [entry]
    if len(parts) < len(names) or (len(parts) > len(names) and not isinstance(entry, tuple | list)):
        raise InputError(f"{where}: {len(parts)} arrays, and the model takes {len(names)}: {', '.join(names)}")
    return dict(zip(names, parts, strict=False))  # what stands behind the inputs are labels


def _of_path(path: Path, names: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        files = sorted(path.iterdir(), key=_natural) if path.is_dir() else [path]
        files = [file for file in files if file.suffix in (".npy", ".npz")] if path.is_dir() else files
        if not files:
            raise InputError(f"{path}: no .npy or .npz file in this folder", LAYOUT)
        for file in files:
            yield str(file), _read(file, names)
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever a damaged file makes them
        if isinstance(error, OSError) and not path.exists():
            raise unreadable(path, error) from None
        if isinstance(error, ValueError) and any(text in str(error) for text in OBJECTS):
            hint = "save numbers of one type and shape: np.save(path, np.stack(arrays))"
            raise InputError(f"{path}: an array of Python objects, not of numbers", hint) from None
        cause = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise InputError(f"{path}: {cause}", LAYOUT) from None


def _read(file: Path, names: list[str]) -> Mapping[str, Any]:
    """The arrays of one file; a ``.npy`` is mapped, so that it need not fit into memory."""
    with file.open("rb") as opened:
        magic = opened.read(6)
        if magic == b"\x93NUMPY":
            return _named(np.load(file, mmap_mode="r", allow_pickle=False), names, str(file))
        if not magic.startswith(b"PK"):
            raise InputError(f"{file}: neither a .npy nor a .npz file", LAYOUT)
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as stored:
            if len(names) == len(stored.files) == 1:
                return {names[0]: stored[stored.files[0]]}
            return {name: stored[name] for name in names if name in stored.files}


def _natural(path: Path) -> list[str | int]:
    """``batch10`` after ``batch9``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]
