"""The report formats by name: a format is one file beside this one, and one line here.

Each is a pure function from a result to text, for CI systems, code scanners and attestations.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bnfold.report.formats.common import dumps

if TYPE_CHECKING:
    from bnfold.results.verification import Comparison

FORMATS: dict[str, str] = {
    "json": "bnfold's own JSON",
    "junit": "JUnit XML: a test case for each check, fold and output",
    "github": "GitHub's workflow commands: annotations",
    "gitlab": "GitLab's Code Quality JSON",
    "sarif": "SARIF 2.1.0",
    "intoto": "an unsigned in-toto statement with a test result",
}
"""The formats by name, each with what it is. All but ``json`` have a module of that name, which holds ``render``."""


def render(kind: str, comparison: Comparison, root: str | None = None) -> str:
    """Return ``comparison`` in the format ``kind``, one of ``FORMATS``; the text ends with a newline.

    ``root`` is the folder that absolute paths beneath it are given relative to, such as the repository's (json gives
    the paths as they are, intoto the files' names). Nothing is read or written, and the same result always gives the
    same text. Raises ValueError for an unknown ``kind``.
    """
    if kind not in FORMATS:
        raise ValueError(f"{kind!r} is not one of {', '.join(FORMATS)}")
    if kind == "json":
        return dumps(comparison.to_dict())
    return str(import_module(f"bnfold.report.formats.{kind}").render(comparison, root))
