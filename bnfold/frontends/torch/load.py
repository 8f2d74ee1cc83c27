"""Load a ``.pt2``: checked as data first (:mod:`bnfold.io.pt2`), then by torch, from the checked members alone."""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InconclusiveError, InputError, one_line
from bnfold.io.load import read_file
from bnfold.io.pt2 import checked

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

INSTALL = "pip install 'bnfold[torch]'"

EXTRA = "extra/"
"""Where an archive holds files that are not torch's: users' own, and what bnfold notes."""

NOTES = "bnfold.json"
"""The extra file that says what a program was folded from."""


@dataclass(frozen=True)
class LoadedProgram:
    """A program as it was read. ``extra`` holds the archive's extra files; ``path`` is None for a live object.

    ``is_file`` is True where ``path`` is the ``.pt2`` itself, and not a module that was exported from.
    """

    path: Path | None
    program: ExportedProgram
    sha256: str
    size: int
    extra: dict[str, str] = field(default_factory=dict)
    is_file: bool = False

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "<program>" if self.path is None else str(self.path)


def load_program(path: Path) -> LoadedProgram:
    """Load a ``.pt2`` file. Raises InputError, also where torch is not installed."""
    data = read_file(path)
    archive = checked(data, str(path))
    extra = {
        name.removeprefix(EXTRA): text.decode("utf-8", "replace")
        for name, text in archive.members.items()
        if name.startswith(EXTRA)
    }
    torch = import_torch(f"{path}: a PyTorch exported program")
    try:
        with quiet():
            program = torch.export.load(io.BytesIO(archive.repacked()))
    except Exception as error:  # torch raises many kinds for what it can't read
        raise InputError(f"{path}: torch can't load it ({one_line(error)})", "save it again with this torch") from None
    return LoadedProgram(path, program, hashlib.sha256(data).hexdigest(), len(data), extra, True)


def tensors_fed(program: ExportedProgram) -> Iterator[tuple[str, Tensor]]:
    """Name and example of every tensor that a caller has to feed. Raises InconclusiveError for other inputs."""
    from torch import Tensor
    from torch.export.graph_signature import InputKind

    nodes = {node.name: node for node in program.graph.nodes}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            held = nodes[spec.arg.name].meta.get("val") if spec.arg.name in nodes else None
            if not isinstance(held, Tensor):
                raise InconclusiveError(f"input {spec.arg.name!r} is no tensor of numbers", "give another program")
            yield spec.arg.name, held


def import_torch(wanted: str) -> Any:
    """Torch, imported now. Raises InputError that says how to install it."""
    try:
        import torch
        import torch.export
    except ImportError as error:
        raise InputError(f"{wanted} requires torch, which can't be imported here ({error})", INSTALL) from None
    return torch


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's warnings and log lines off the terminal: they are not about the user's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
