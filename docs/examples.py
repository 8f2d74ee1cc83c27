"""griffe's extension for the site: examples in docstrings become blocks of code, as doctest reads them."""

from __future__ import annotations

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Put fences around every example."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class and function."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """An example begins with its prompt and ends with an empty line."""
    found, inside = [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith(">>> ") and not inside:
            found.append("```pycon")
            inside = True
        elif inside and not line.strip():
            found.append("```")
            inside = False
        found.append(line)
    return "\n".join(found)
