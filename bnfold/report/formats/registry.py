"""The report formats by name: a format is one file beside this one, and one line here.

Each is a pure function from a result to text, for CI systems, code scanners and attestations.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.results.verification import Comparison


@dataclass(frozen=True)
class Format:
    """What a format is, and what its texts ``start`` with; without a ``start`` it is printed and has no file."""

    description: str
    start: str


FORMATS = {
    "json": Format("bnfold's own JSON", "{"),
    "junit": Format("JUnit XML: a test case for each check, fold and output", "<"),
    "sarif": Format("SARIF 2.1.0", "{"),
    "gitlab": Format("GitLab's Code Quality JSON", "["),
    "intoto": Format("an unsigned in-toto statement with a test result", "{"),
    "github": Format("GitHub's workflow commands: annotations", ""),
}
"""The formats by name. All but ``json`` have a module of that name, which holds ``render``."""


def render(kind: str, comparison: Comparison, root: str | None = None) -> str:
    """Return ``comparison`` in the format ``kind``, one of ``FORMATS``; the text ends with a newline.

    ``root`` is the folder that absolute paths beneath it are given relative to, such as the repository's (json gives
    the paths as they are, intoto the files' names). Nothing is read or written, and the same result always gives the
    same text. Raises ValueError for an unknown ``kind``.
    """
    if kind not in FORMATS:
        raise ValueError(f"{kind!r} is not one of {', '.join(FORMATS)}")
    if kind == "json":
        from bnfold.report.formats.common import dumps

        return dumps(comparison.to_dict())
    return str(import_module(f"bnfold.report.formats.{kind}").render(comparison, root))
