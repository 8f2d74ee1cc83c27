"""Load a pickled or scripted module, whatever it runs, and export it.

In a process of its own, never in that of the tool itself.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch


def main(job_path: str) -> None:
    """Do what the job file says and leave ``result.json`` beside it."""
    job = json.loads(Path(job_path).read_text())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(job)
    except Exception as error:  # a stranger's module may raise anything at all
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(job_path).with_name("result.json").write_text(json.dumps(result))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Export the module for inputs of the shapes given."""
    module = _loaded(job["model"])
    if any(getattr(part, "training", False) for part in module.modules()):  # frozen scripts have no such thing
        return {"error": "it is in training mode: call eval() on it and save it again"}
    inputs = tuple(torch.randn(shape) for shape in job["shapes"])
    if isinstance(module, torch.jit.ScriptModule):
        module = _unscripted(module, inputs)
    torch.export.save(torch.export.export(module, inputs), job["target"])
    return {}


def _loaded(path: str) -> torch.nn.Module:
    try:
        found: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError:
        found = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(found, torch.nn.Module):
        raise TypeError(f"it holds a {type(found).__name__}, not a module")
    return found


def _unscripted(module: torch.jit.ScriptModule, inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """A scripted module as one that torch.export takes."""
    from torch._export.converter import TS2EPConverter

    return TS2EPConverter(module, inputs).convert().module()


if __name__ == "__main__":
    main(sys.argv[1])
