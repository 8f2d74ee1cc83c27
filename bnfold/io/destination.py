"""Where a model is written to: the file, what may stand there already, or nowhere at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import OutputError, UsageError

if TYPE_CHECKING:
    from bnfold.options import Format

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "pt2": ".pt2"}


@dataclass(frozen=True)
class Destination:
    """Where a model goes: to ``place`` (None: standard output), replacing what stands there with ``force``.

    With ``keep`` nothing is written, the model is in the result; after a ``dry_run`` there is none.
    """

    place: Path | None
    force: bool = False
    keep: bool = False
    dry_run: bool = False


def checked_place(target: str | Path, to: Format, *, force: bool, kept: frozenset[Path] = frozenset()) -> Path | None:
    """Return where to write; None for ``-``, standard output. ``kept`` are resolved paths that nothing may replace.

    Raises UsageError for a place that can't hold a model of the format, or holds something already.
    """
    if str(target) == "-":
        return None
    path = Path(target)
    other = next((suffix for kind, suffix in SUFFIXES.items() if kind != to and path.suffix == suffix), None)
    if other is not None:
        hint = "--to onnx makes an ONNX model of a program" if other == ".onnx" else "give it another suffix"
        raise UsageError(f"{path}: what is written is {'ONNX' if to == 'onnx' else 'a PyTorch exported program'}", hint)
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder", "name a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file", "name another")
        if path.exists() and not force:
            raise UsageError(f"output file already exists: {path}", "use --force to replace it")
        if path.resolve() in kept:
            raise UsageError(f"{path}: holds the weights of the model", "name another file")
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return path
