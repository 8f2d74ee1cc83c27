"""Load a pickled or scripted module, which runs what it holds, and export it.

This is done in a process of its own, never in that of the tool itself.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from bnfold.errors import InputError
from bnfold.models.unsafe import Exported, ExportJob
from bnfold.verification.runtime.jobs import serve


def run(job: ExportJob, _folder: Path) -> Exported:
    """Export the module. Raises InputError for one in training mode, and whatever the module itself raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = _loaded(job.model)
        if any(getattr(part, "training", False) for part in module.modules()):  # frozen scripts have no such attribute
            raise InputError("it is in training mode: call eval() on it and save it again")
        inputs = tuple(torch.randn(shape) for shape in job.shapes)
        if isinstance(module, torch.jit.ScriptModule):
            module = _unscripted(module, inputs)
        torch.export.save(torch.export.export(module, inputs), job.target)
    return Exported()


def _loaded(path: str) -> torch.nn.Module:
    try:
        found: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError:
        found = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(found, torch.nn.Module):
        raise TypeError(f"it holds a {type(found).__name__}, not a module")
    return found


def _unscripted(module: torch.jit.ScriptModule, inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """Return a scripted module as one that torch.export takes."""
    from torch._export.converter import TS2EPConverter

    return TS2EPConverter(module, inputs).convert().module()


if __name__ == "__main__":
    serve(sys.argv[1], ExportJob, run, InputError)
