"""What every result says of model files: which were read, what was written, by which version of bnfold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bnfold.io.digests import DataFiles
from bnfold.version import __version__

DataPair = tuple[DataFiles, DataFiles]
"""The data files of an original and of its fold."""


@dataclass(frozen=True)
class ModelInfo:
    """A model file: its path, the sha256 of its bytes, its format, and the versions that it declares (ONNX alone)."""

    path: str
    sha256: str
    format: str
    ir_version: int | None
    opset: int | None


@dataclass(frozen=True, eq=False)
class Written:
    """A model that was written; its digest is computed when it is asked for."""

    path: str
    digest: Callable[[], str]

    @property
    def sha256(self) -> str:
        """Return the sha256 of the model file."""
        return self.digest()

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON."""
        return {"path": self.path, "sha256": self.sha256}


def head(command: str) -> dict[str, Any]:
    """Return what the JSON of every command begins with: the schema's version, the tool, the command."""
    return {"schema_version": 1, "tool": {"name": "bnfold", "version": __version__}, "command": command}


def versions() -> dict[str, str]:
    """Return the versions of bnfold, Python and the libraries that take part in a run."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"bnfold": __version__, "python": platform.python_version()}
    for package in ("onnx", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
