"""A JSON Schema of ``[tool.bnfold]`` for editors, made from the commands' own options.

``python -m bnfold.cli.schema`` writes it to ``pyproject.schema.json`` beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bnfold.cli.commands import command_named
from bnfold.cli.project import COMMANDS, option_names


def schema() -> dict[str, Any]:
    """Return the schema."""
    tables = {}
    for name in COMMANDS:
        options = sorted(option_names(command_named(name)).items())
        properties = {key: _property(option) for key, option in options}
        tables[name] = {"type": "object", "additionalProperties": False, "properties": properties}
    model = {
        "oneOf": [
            {"type": "string", "description": "A path or a glob, relative to this file."},
            {
                "type": "object",
                "required": ["model"],
                "additionalProperties": False,
                "properties": {"model": {"type": "string"}, "output": {"type": "string"}},
            },
        ]
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://json.schemastore.org/partial-bnfold.json",
        "title": "bnfold",
        "description": "The table [tool.bnfold] of pyproject.toml.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "models": {
                "type": "array",
                "items": model,
                "description": "What fold, inspect and verify take by default.",
            },
            "output-dir": {"type": "string", "description": "Where folded models go, under their own names."},
            **tables,
        },
    }


def _property(option: click.Option) -> dict[str, Any]:
    if option.is_flag:
        kind: dict[str, Any] = {"type": "boolean"}
    elif isinstance(option.type, click.Choice):
        kind = {"enum": list(option.type.choices)}
    elif isinstance(option.type, click.types.IntParamType):
        kind = {"type": "integer"}
    elif isinstance(option.type, click.types.FloatParamType):
        kind = {"type": "number"}
    else:
        kind = {"type": "string"}
    if option.multiple:
        kind = {"type": "array", "items": kind}
    return {**kind, "description": option.help or ""}


if __name__ == "__main__":
    Path(__file__).with_name("pyproject.schema.json").write_text(json.dumps(schema(), indent=2) + "\n")
