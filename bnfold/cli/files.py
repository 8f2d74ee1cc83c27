"""Files that a command line names: models to read, places to write to."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from bnfold.results.drift import Drift


def expand(models: tuple[str, ...]) -> list[str]:
    """Return files, globs and folders as one list of files (``-`` is standard input). Raises InputError."""
    files: list[str] = []
    for name in models:
        if not name:
            raise UsageError("a model's name is empty", "is a variable of the script not set?")
        if name != "-" and _is_folder(name):
            inside = (path for suffix in ("onnx", "pt2") for path in Path(name).glob(f"*.{suffix}"))
            found = sorted(str(path) for path in inside if ".folded" not in path.suffixes)
            if not found and (Path(name) / "saved_model.pb").exists():
                raise InputError(f"{name}: a TensorFlow SavedModel, not ONNX", "convert it to ONNX first (tf2onnx)")
            if not found:
                raise InputError(f"{name}: no .onnx or .pt2 file in this folder, folded ones aside", "name the files")
            files += found
        elif name != "-" and glob.has_magic(name) and not Path(name).exists():
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise InputError(f"{name}: no file matches this pattern", "check the folder and the suffix")
            files += found
        else:
            files.append(name)
    return files


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def same_file(target: str | None, model: str) -> bool:
    """Return True if a place to write to is the model itself, by whatever name."""
    try:
        return target is not None and target != "-" and Path(target).samefile(model)
    except (OSError, ValueError):
        return False


def check_plot(target: str | None, models: list[str]) -> None:
    """Refuse a place for the picture that would cost the user a file, or where none can be."""
    if target is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", "pip install 'bnfold[plot]'")
    path = Path(target)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--plot {target}: must end in .svg, .png or .pdf", "give it such a suffix")
    if any(same_file(target, model) for model in models):
        raise UsageError(f"--plot {target}: is a model", "name another file")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--plot {target}: its folder does not exist", "create it first")


def draw_drifts(drifts: Mapping[str, Drift], model: str, target: str) -> None:
    """Draw how far data are from the statistics, for ``--plot``. Raises OutputError."""
    from bnfold.report import drift_plot, figures

    figures.save(lambda: drift_plot.draw(drifts, Path(model).name), target)


def write_text(path: Path, text: str, *, append: bool = False) -> None:
    """Write a text to a file, or ``append`` it. Raises OutputError."""
    try:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
