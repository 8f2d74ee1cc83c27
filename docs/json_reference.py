"""mkdocs' hook for the page of JSON fields, which is made from the JSON Schema that the package ships.

An object of the schema's ``$defs`` becomes a section, its fields a list; a field that is one of these objects links to
its section.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[1] / "bnfold/report/schema.json"
MARK = "<!-- fields -->"
PREFIX = "#/$defs/"

Schema = dict[str, Any]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page before it is rendered."""
    return markdown.replace(MARK, reference(json.loads(SCHEMA.read_text()))) if MARK in markdown else markdown


def reference(schema: Schema) -> str:
    """Return a section for each command, then one for each object that they hold."""
    commands = [part["$ref"].removeprefix(PREFIX) for part in schema["oneOf"]]
    objects = [name for name in schema["$defs"] if name not in commands]
    lines = ["## Documents"]
    for names, title in ((commands, None), (objects, "## Objects")):
        lines += ["", title] if title else []
        for name in names:
            found = schema["$defs"][name]
            lines += ["", f"### {name}", "", found["description"], "", *_fields(schema, found)]
    return "\n".join(lines) + "\n"


def _fields(schema: Schema, found: Schema, prefix: str = "") -> Iterator[str]:
    """Yield a line for each field, those of an object that has no section of its own under the object's name."""
    for name, field in found.get("properties", {}).items():
        resolved = _resolved(schema, field)
        optional = "" if name in found["required"] else ", optional"
        text = field.get("description") or _described(schema, resolved)
        yield f"- `{prefix}{name}` ({_type(resolved)}{optional}): {text}"
        if "properties" in resolved and "$ref" not in resolved:
            yield from _fields(schema, resolved, f"{prefix}{name}.")


def _resolved(schema: Schema, field: Schema) -> Schema:
    """Return what a reference to a single field stands for; a reference to an object stays one."""
    path = field.get("$ref", "").removeprefix(PREFIX).split("/")
    if len(path) == 1:
        return field
    found: Any = schema["$defs"]
    for part in path:
        found = found[part]
    return dict(found)


def _described(schema: Schema, field: Schema) -> str:
    """Return what is said of a field, or of the object that it is."""
    name = field.get("$ref", "").removeprefix(PREFIX)
    return str(schema["$defs"][name]["description"] if name else field["description"])


def _type(field: Schema) -> str:
    if "$ref" in field:
        name = field["$ref"].removeprefix(PREFIX)
        return f"[{name}](#{name})"
    if "oneOf" in field:
        return " or ".join(_type(part) for part in field["oneOf"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"array of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"object of {_type(field['additionalProperties'])}"
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return " or ".join(kinds)
