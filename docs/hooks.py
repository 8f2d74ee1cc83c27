"""mkdocs' hook: what its plugins write that a reader does not need.

Docstrings name things as Sphinx does (``:func:`fold```); the site shows the names alone. An option without a default
has none in the table of options, where click's own marker would stand. A picture that is drawn for dark pages too is
shown there (``docs/pictures.py``; material hides the other one).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

UNSET = re.compile(r"<code>(?:Sentinel\.)?UNSET</code>")
ROLE = re.compile(r":(?:func|class|mod|meth|data):(<code>)")
PICTURE = re.compile(r'<img ([^>]*)src="((?:[^">]*/)?)images/([\w-]+)\.svg"([^>]*)>')
IMAGES = Path(__file__).parent / "images"


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page that it has rendered."""
    return PICTURE.sub(both_themes, UNSET.sub("", ROLE.sub(r"\1", html)))


def both_themes(found: re.Match[str]) -> str:
    """Return a picture for light pages and one for dark ones, where there are two."""
    before, folder, name, after = found.groups()
    if not (IMAGES / f"{name}.dark.svg").is_file():
        return found[0]
    return "".join(
        f'<img {before}src="{folder}images/{name}{ending}.svg#only-{theme}"{after}>'
        for ending, theme in (("", "light"), (".dark", "dark"))
    )
