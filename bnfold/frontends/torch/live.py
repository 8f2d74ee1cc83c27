"""Programs that never were files: modules and exported programs in a Python session."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

from bnfold.errors import InputError, UsageError, one_line
from bnfold.frontends.torch.load import LoadedProgram, quiet


def is_live(model: object) -> bool:
    """Return True for an ``nn.Module`` or an ``ExportedProgram``. Torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module | torch.export.ExportedProgram)


def from_live(model: Any, example_inputs: Sequence[Any] | None) -> LoadedProgram:
    """A live object as a program; a module is exported with the example inputs, and must be in evaluation mode.

    Raises UsageError, InputError.
    """
    import torch

    name = type(model).__name__
    if isinstance(model, torch.export.ExportedProgram):
        return LoadedProgram(None, model, _digest(model), 0)
    training = [path or name for path, part in model.named_modules() if part.training]
    if training:
        raise UsageError(
            f"{name}: {training[0]} is in training mode, where it is not a fixed function", "call model.eval()"
        )
    if example_inputs is None:
        raise UsageError(
            f"{name}: a module is exported first, which requires example inputs", "pass example_inputs=(x,)"
        )
    try:
        with quiet():
            program = torch.export.export(model, tuple(example_inputs))
    except Exception as error:  # torch.export raises many kinds for what it can't trace
        raise InputError(
            f"{name}: torch can't export it ({one_line(error)})", "export it yourself and fold the program"
        ) from None
    return LoadedProgram(None, program, _digest(program), 0)


def _digest(program: Any) -> str:
    """Return what stands for the sha256 of a file: the graph's text and the tensors' bytes."""
    import torch

    digest = hashlib.sha256(str(program.graph).encode())
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(name.encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy().tobytes())
    return digest.hexdigest()
