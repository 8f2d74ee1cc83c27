"""mkdocs' hook: what its plugins write that a reader does not need.

Docstrings name things as Sphinx does (``:func:`fold```); the site shows the names alone. An option without a default
has none in the table of options, where click's own marker would stand.
"""

from __future__ import annotations

import re
from typing import Any

UNSET = re.compile(r"<code>(?:Sentinel\.)?UNSET</code>")
ROLE = re.compile(r":(?:func|class|mod|meth|data):(<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page that it has rendered."""
    return UNSET.sub("", ROLE.sub(r"\1", html))
