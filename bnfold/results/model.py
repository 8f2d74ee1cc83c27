"""Model files as results name them, and what every JSON begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bnfold.version import __version__


@dataclass(frozen=True)
class ModelInfo:
    """A model file: where it lies, the sha256 of its bytes, what it declares (versions: ONNX alone)."""

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
        """Of the model file."""
        return self.digest()

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return {"path": self.path, "sha256": self.sha256}


def head(command: str) -> dict[str, Any]:
    """What every JSON begins with."""
    return {"schema_version": 1, "tool": {"name": "bnfold", "version": __version__}, "command": command}
