"""What mutation testing leaves because it changes nothing that anybody could see, and why.

``equivalents.txt`` has a reason, and below it lines as they stand (``-``) and as changes make them (``+``), by file.
"""

from __future__ import annotations

from pathlib import Path

Change = tuple[str, str, str]
"""A file, a line of it, and what stands there after the change."""


def equivalents() -> dict[Change, str]:
    """Each known change that changes nothing, with the reason. Raises ValueError for one without."""
    known: dict[Change, str] = {}
    file = before = reason = ""
    for text in Path(__file__).with_suffix(".txt").read_text().splitlines():
        sign, line = text[:2], text[2:]
        if sign == "= ":
            file, before, reason = line, "", ""
        elif sign == "# ":
            before, reason = "", line if before else f"{reason} {line}".strip()
        elif sign == "- ":
            before = line
        elif sign == "+ ":
            if not (file and before and reason) or (file, before, line) in known:
                raise ValueError(f"{file}: {line!r} has no reason, or two")
            known[file, before, line] = reason
    return known
