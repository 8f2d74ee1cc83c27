"""TorchScript and pickled modules, on request only: loading them runs what they hold, so another process does it.

The process exports the model to a ``.pt2``; that file is then checked and loaded like any other. If the process crashes
(exporting a frozen TorchScript module can), bnfold does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.errors import InputError, UsageError
from bnfold.frontends.torch.load import LoadedProgram, import_torch, load_program
from bnfold.io.folders import temporary
from bnfold.io.load import read_file
from bnfold.options import Limits
from bnfold.verification.runtime import runner as runtime

WORKER = "bnfold.models.unsafe_worker"


@dataclass(frozen=True)
class ExportJob:
    """Export the module in ``model`` to ``target``, for inputs of ``shapes``, in order."""

    model: str
    target: str
    shapes: list[list[int]]


@dataclass(frozen=True)
class Exported:
    """The export is done."""


SHAPE_HINT = "write --shape x:1,3,224,224, once per input and in their order"


def load_unsafe(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> LoadedProgram:
    """Return the model in ``path`` as a program. What the file holds is executed, in another process.

    ``shapes`` are those of the inputs, by any names, in order. Raises InputError, UsageError.
    """
    import_torch(f"{path}: a model of torch")
    if not shapes:
        raise UsageError(f"{path}: exporting it takes the shapes of its inputs", SHAPE_HINT)
    with temporary() as folder:
        target = folder / "exported.pt2"
        job = ExportJob(str(path.absolute()), str(target), [list(shape) for shape in shapes.values()])
        try:
            runtime.spawn(WORKER, folder, job, Exported, Limits(), task=path.name, trusted=True)
        except runtime.RunFailed as error:
            raise InputError(
                f"{path}: it can't be exported: {error}", "export it yourself: torch.export.save"
            ) from None
        data = read_file(path)
        digest = hashlib.sha256(data).hexdigest()
        return replace(load_program(target), path=path, sha256=digest, size=len(data), is_file=False)
