"""Activations of all batches between two levels: in memory while they are few, else in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.calibration.network import Values

IN_MEMORY = 2**28
"""Bytes that all batches together may take in memory; what comes after them goes to files."""


@dataclass(frozen=True)
class _Written:
    """An array in a file, as its bytes: numpy's own format does not know bfloat16."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """The array; its file goes."""
        data = np.fromfile(self.path, np.uint8).view(self.dtype).reshape(self.shape)
        self.path.unlink()
        return data


class ActivationCache:
    """Written once, then read once, in order. Files lie in ``folder``, and go as they are read."""

    def __init__(self, folder: Path, limit: int = IN_MEMORY) -> None:
        self._folder, self._limit = folder, limit
        self._entries: list[dict[str, NDArray[Any] | _Written]] = []
        self._held = 0

    def add(self, values: Values) -> None:
        """Take the values of one batch."""
        size = sum(array.nbytes for array in values.values())
        self._held += size
        if self._held <= self._limit:
            self._entries.append(dict(values))
            return
        entry: dict[str, NDArray[Any] | _Written] = {}
        for name, array in values.items():
            path = self._folder / f"{id(self)}-{len(self._entries)}-{len(entry)}"
            np.ascontiguousarray(array).reshape(-1).view(np.uint8).tofile(path)
            entry[name] = _Written(path, array.dtype, array.shape)
        self._entries.append(entry)

    def __iter__(self) -> Iterator[Values]:
        """Give each batch's values, and forget them."""
        entries, self._entries, self._held = self._entries[::-1], [], 0
        while entries:
            yield {name: held.read() if isinstance(held, _Written) else held for name, held in entries.pop().items()}
