"""``[tool.bnfold]`` in ``pyproject.toml``: a project's models, where their folds go, and options of its own.

The nearest ``pyproject.toml`` with such a table counts, from the working directory upwards; its paths are relative to
it. Options stand in a table named after the command, under their long names; what is said on the command line wins.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from bnfold.cli.commands import command_named
from bnfold.errors import InputError, UsageError, one_line

FILE = "pyproject.toml"

COMMANDS = ("fold", "inspect", "verify", "calibrate", "bench")
"""Those that may have a table of options."""

NEVER = frozenset({"help", "allow-unsafe-load", "output", "in-place", "dask"})
"""Options that a file may not set: a repository that was cloned must not decide to run code, or whom to connect to."""

READ = frozenset({"inputs", "data"})
WRITTEN = frozenset({"output-dir", "json", "plot", "resume", "graph", "report"})
"""Options whose value is a path, relative to the project; what is written must stay inside of it."""


@dataclass(frozen=True)
class Entry:
    """A model and where its fold goes (None: beside it)."""

    model: str
    output: str | None


@dataclass(frozen=True)
class Project:
    """What a project says of bnfold."""

    file: Path
    entries: list[Entry] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


def find(start: Path | None = None) -> Project | None:
    """Return the project of a folder (by default the working directory). Raises InputError, UsageError."""
    try:
        folder = (start or Path.cwd()).resolve()
    except OSError:
        return None
    for parent in (folder, *folder.parents):
        table = _table(parent / FILE)
        if table is not None:
            return _read(parent / FILE, table)
    return None


def _table(path: Path) -> dict[str, Any] | None:
    """Return the table ``tool.bnfold`` of a file; None if there is none."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return None
    if "bnfold" not in text:
        return None
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        tool = toml.loads(text).get("tool", {})
    except (toml.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: {one_line(error)}", "it is no TOML") from None
    found = tool.get("bnfold") if isinstance(tool, dict) else None
    if found is not None and not isinstance(found, dict):
        raise UsageError(f"{path}: tool.bnfold is no table")
    return found


def _read(path: Path, table: dict[str, Any]) -> Project:
    known = ("models", "output-dir", *COMMANDS)
    for key in table:
        if key not in known:
            raise UsageError(f"{path}: [tool.bnfold] has no {key!r}", _near(key, known))
    options = {name: table[name] for name in COMMANDS if name in table}
    for name, given in options.items():
        if not isinstance(given, dict):
            raise UsageError(f"{path}: tool.bnfold.{name} is no table")
    return Project(path, list(_entries(path, table)), options)


def _entries(path: Path, table: dict[str, Any]) -> Iterator[Entry]:
    folder, models, target = path.parent, table.get("models", []), table.get("output-dir")
    if not isinstance(models, list) or not (target is None or isinstance(target, str)):
        raise UsageError(f"{path}: models is a list, output-dir a text")
    for entry in models:
        given = {"model": entry} if isinstance(entry, str) else entry
        wrong = not isinstance(given, dict) or set(given) - {"model", "output"} or "model" not in given
        if wrong or not all(isinstance(value, str) and value for value in given.values()):
            raise UsageError(
                f"{path}: {entry!r} in models is neither a path nor a table of model and output",
                'write "model.onnx" or { model = "model.onnx", output = "folded.onnx" }',
            )
        names = _expanded(path, folder, given["model"])
        if "output" in given and len(names) > 1:
            raise UsageError(f"{path}: {given['model']} is several models, output one file", "use output-dir")
        for name in names:
            output = given.get("output")
            if output is None and target is not None:
                output = str(Path(target) / Path(name).name)
            yield Entry(name, None if output is None else _inside(path, output))


def _expanded(path: Path, folder: Path, pattern: str) -> list[str]:
    import glob

    if not glob.has_magic(pattern):
        return [_from_here(folder / pattern)]
    found = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    names = [_from_here(folder / name) for name in found if ".folded" not in Path(name).suffixes]
    if not names:
        raise InputError(f"{path}: no file matches {pattern!r}", "patterns are relative to this file's folder")
    return names


def _inside(file: Path, place: str) -> str:
    """Return a place to write to, which a project may only name inside of itself. Raises UsageError."""
    root = file.parent.resolve()
    try:
        inside = (root / place).resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise UsageError(f"{file}: {place!r} lies outside of the project", "name it on the command line")
    return _from_here(root / place)


def _from_here(path: Path) -> str:
    """Return a path as a user in the working directory would write it, if it lies below."""
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def defaults(project: Project | None, command: click.Command) -> dict[str, Any]:
    """Return the options of a command that the project sets, by click's parameter names. Raises UsageError."""
    given = {} if project is None else project.options.get(str(command.name), {})
    if project is None or not given:
        return {}
    names = option_names(command)
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key not in names:
            hint = "only the command line may set it" if key in NEVER else _near(key, names)
            raise UsageError(f"{project.file}: [tool.bnfold.{command.name}] has no {key!r}", hint)
        parameter = names[key]
        values = value if isinstance(value, list) else [value]
        plain = all(isinstance(one, str | int | float) for one in values)
        fits = plain and isinstance(value, bool) == parameter.is_flag and isinstance(value, list) <= parameter.multiple
        if not fits:
            kind = "true or false" if parameter.is_flag else "a list" if parameter.multiple else "one value"
            raise UsageError(f"{project.file}: {key} in [tool.bnfold.{command.name}] takes {kind}")
        if key in READ | WRITTEN:
            values = [_placed(project.file, key, str(one)) for one in values]
        found[str(parameter.name)] = values if parameter.multiple else values[0]
    return found


def _placed(file: Path, key: str, value: str) -> str:
    """Return a path as the option takes it: from the working directory. Raises UsageError."""
    if "\0" in value:
        raise UsageError(f"{file}: {key} holds a NUL character")
    kind, equals, place = value.partition("=") if key == "report" else ("", "", value)
    if place in ("", "-"):
        return value
    return kind + equals + (_inside(file, place) if key in WRITTEN else _from_here(file.parent / place))


def option_names(command: click.Command) -> dict[str, click.Option]:
    """Return the options that a project may set, by their long names without dashes."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not isinstance(parameter.flag_value, str):
            long = [name.removeprefix("--") for name in parameter.opts if name.startswith("--")]
            former = [name.removeprefix("--") for name in getattr(parameter, "aliases", ())]
            found.update({name: parameter for name in (*long[:1], *former) if name not in NEVER})
    return found


def check(project: Project | None) -> None:
    """Look at all that a project says, for whichever command. Raises UsageError."""
    for name in COMMANDS if project is not None else ():
        defaults(project, command_named(name))


def models(command: str) -> list[Entry]:
    """Return the models of the project, for a call that names none. Raises UsageError."""
    project = find()
    if project is None or not project.entries:
        raise UsageError(
            f"no model is given, and no {FILE} here lists models under [tool.bnfold]",
            f"bnfold {command} {'ORIGINAL FOLDED' if command == 'verify' else 'model.onnx'}; --help lists the options",
        )
    return project.entries


def _near(key: str, known: Any) -> str:
    found = get_close_matches(key, list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else f"known: {', '.join(sorted(known))}"
