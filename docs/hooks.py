"""mkdocs' hook: what its plugins write that a reader does not need.

Docstrings name things as Sphinx does (``:func:`fold```); the site shows the names alone. An option without a default
has none in the table of options, where click's own marker would stand. ``<!-- include FILE -->`` is a file of the root.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"<!-- include ([A-Z]+\.md) -->")

UNSET = re.compile(r"<code>(?:Sentinel\.)?UNSET</code>")
ROLE = re.compile(r":(?:func|class|mod|meth|data):(<code>)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page before it is rendered: include a file of the root, its links as the site's."""
    return INCLUDE.sub(lambda match: _included(match[1]), markdown)


def _included(name: str) -> str:
    text = (ROOT / name).read_text().replace("](docs/", "](")
    return re.sub(r"\[([^]]*)\]\(README\.md[^)]*\)", r"\1", text)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page that it has rendered."""
    return UNSET.sub("", ROLE.sub(r"\1", html))
