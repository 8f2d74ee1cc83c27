"""mkdocs' hook: docstrings name things as Sphinx does (``:func:`fold```); the site shows the names alone."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:func|class|mod|meth|data):(<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page that it has rendered."""
    return ROLE.sub(r"\1", html)
