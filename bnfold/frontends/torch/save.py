"""A program as the bytes of a ``.pt2``, with its provenance metadata."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from bnfold.errors import InputError, one_line
from bnfold.frontends.torch.load import NOTES, LoadedProgram, import_torch, quiet
from bnfold.version import __version__

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from bnfold.options import PlanOptions


def program_bytes(
    program: ExportedProgram, source: LoadedProgram, options: PlanOptions | None = None, *, calibrated: bool = False
) -> bytes:
    """Return what ``torch.export.save`` writes, with the extra files of the source and bnfold's note among them.

    ``options`` are those that it was folded with. A program that was ``calibrated`` is no fold: it does not name
    its source.
    """
    torch = import_torch("saving a program")
    note = (
        {"calibrated": __version__}
        if calibrated
        else {
            "version": __version__,
            "source": "<program>" if source.path is None else source.path.name,
            "source_sha256": source.sha256,
            **({} if options is None else {"options": options.record()}),
        }
    )
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer, extra_files={**source.extra, NOTES: json.dumps(note)})
    except Exception as error:  # torch raises many kinds for what it can't write
        raise InputError(
            f"{source.name}: torch can't save the program ({one_line(error)})", "export it again"
        ) from None
    return buffer.getvalue()


def provenance_of(loaded: LoadedProgram) -> dict[str, str]:
    """Return the provenance metadata of a program that bnfold folded; empty for others."""
    try:
        found = json.loads(loaded.extra.get(NOTES, "{}"))
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
