"""mkdocs' hook: what its plugins write that a reader does not need, and what readers of screens and phones do.

Docstrings name things as Sphinx does (``:func:`fold```); the site shows the names alone. An option without a default
has none in the table of options, where click's own marker would stand. A picture that is drawn for dark pages too is
shown there (``docs/pictures.py``; material hides the other one). Transcripts are of a pipe, whose columns are separated
by tabs: the site shows them as a terminal does. The cells of tables of prose say what they are, for phones
(``docs/stylesheets/site.css``). ``<!-- include FILE -->`` is a file of the root.
"""

from __future__ import annotations

import html as entities
import re
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"<!-- include ([A-Z]+\.md) -->")
UNSET = re.compile(r"<code>(?:Sentinel\.)?UNSET</code>")
ROLE = re.compile(r":(?:func|class|mod|meth|data):(<code>)")
PICTURE = re.compile(r'<img ([^>]*)src="((?:[^">]*/)?)images/([\w-]+)\.svg"([^>]*)>')
TRANSCRIPT = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
CELL = re.compile(r"<td(?P<given>[^>]*)>(?P<text>.*?)</td>", re.DOTALL)
IMAGES = ROOT / "docs" / "images"

WIDTH = 92
"""Letters of a transcript's line that fit into the site's column."""

PROSE = 36
"""Letters of a cell from which a table is one of prose: its columns would be too narrow on a phone."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for the source of each page."""
    markdown = INCLUDE.sub(lambda found: included(found[1]), markdown)
    return TRANSCRIPT.sub(lambda found: f"```console\n{as_terminal(found[1])}```", markdown)


def included(name: str) -> str:
    """Return a file of the root, its links as the site's."""
    text = (ROOT / name).read_text().replace("](docs/", "](")
    return re.sub(r"\[([^]]*)\]\(README\.md[^)]*\)", r"\1", text)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page that it has rendered."""
    html = TABLE.sub(lambda found: labelled(found[0]), UNSET.sub("", ROLE.sub(r"\1", html)))
    return PICTURE.sub(both_themes, html)


def as_terminal(transcript: str) -> str:
    """Return a transcript with its columns aligned and its long lines wrapped."""
    lines: list[str] = []
    for tabs, group in groupby(transcript.splitlines(), key=lambda line: line.count("\t")):
        rows = [line.split("\t") for line in group]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines += [line.rstrip() for line in padded] if tabs else [part for row in rows for part in wrapped(row[0])]
    return "".join(f"{line}\n" for line in lines)


def wrapped(line: str) -> list[str]:
    """Return a line of text in several, indented as its last aligned part is; a command stays whole."""
    if len(line) <= WIDTH or line.startswith("$ "):
        return [line]
    aligned = list(re.finditer(r"\S {2,}(?=\S)", line[:24]))
    indent = aligned[-1].end() if aligned else len(line) - len(line.lstrip()) + 4
    return textwrap.wrap(
        line,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def labelled(table: str) -> str:
    """Return a table of prose with the head of its column in every cell; any other as it is."""
    heads = [plain(text) for text in re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)]
    rows = [list(CELL.finditer(row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
    cells = [plain(cell["text"]) for row in rows for cell in row]
    if max(map(len, cells), default=0) < PROSE or any(row and len(row) != len(heads) for row in rows):
        return table
    labels = iter(heads * len(rows))
    named = CELL.sub(lambda cell: f'<td{cell["given"]} data-label="{next(labels)}">{cell["text"].strip()}</td>', table)
    return named.replace("<table>", "<table data-cards>", 1)


def plain(text: str) -> str:
    """Return what a cell says, without its markup, as an attribute may hold it."""
    return entities.escape(entities.unescape(re.sub(r"<[^>]+>", "", text)).strip())


def both_themes(found: re.Match[str]) -> str:
    """Return a picture for light pages and one for dark ones, where there are two."""
    before, folder, name, after = found.groups()
    if not (IMAGES / f"{name}.dark.svg").is_file():
        return found[0]
    return "".join(
        f'<img {before}src="{folder}images/{name}{ending}.svg#only-{theme}"{after}>'
        for ending, theme in (("", "light"), (".dark", "dark"))
    )
