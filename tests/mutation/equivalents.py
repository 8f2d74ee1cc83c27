"""What mutation testing leaves because it changes nothing that anybody could see, and why.

``equivalents.txt`` has, for each function (``=``), a reason (``#``), and below it lines of it as they stand (``-``) and
as changes make them (``+``).
"""

from __future__ import annotations

from pathlib import Path

Change = tuple[str, str, str]
"""A function as ``file name``, a line of it, and what stands there after the change."""


def equivalents() -> dict[Change, str]:
    """Each known change that changes nothing, with the reason. Raises ValueError for one without."""
    known: dict[Change, str] = {}
    function = before = reason = ""
    for text in Path(__file__).with_suffix(".txt").read_text().splitlines():
        sign, line = text[:2], text[2:]
        if sign == "= ":
            function, before, reason = line, "", ""
        elif sign == "# ":
            before, reason = "", line if before else f"{reason} {line}".strip()
        elif sign == "- ":
            before = line
        elif sign == "+ ":
            if not (function and before and reason) or (function, before, line) in known:
                raise ValueError(f"{function}: {line!r} has no reason, or two")
            known[function, before, line] = reason
    return known
