"""Gives a module other code than its file has: when it is imported, or while it lives."""

from __future__ import annotations

import collections
import gc
import importlib.abc
import importlib.machinery
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

Place = tuple[str, int]
"""A function's qualified name and its first line."""


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets one module be imported with other code."""

    def __init__(self, module: str, path: Path, code: str) -> None:
        self.module, self.path, self.code = module, path, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        is_package = self.path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.code, str(self.path), "exec"), module.__dict__)


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and all within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def essence(code: CodeType) -> tuple[Any, ...]:
    """What a code object does by itself, apart from the functions within and from where it stands."""
    constants = tuple(repr(c) if not isinstance(c, CodeType) else c.co_qualname for c in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def patches(path: Path, code: str) -> dict[Place, CodeType] | None:
    """The functions to change in a living module; None if only an import makes the change (a constant, a default)."""
    old = {(c.co_qualname, c.co_firstlineno): c for c in codes(compile(path.read_text(), str(path), "exec"))}
    new = {(c.co_qualname, c.co_firstlineno): c for c in codes(compile(code, str(path), "exec"))}
    changed = {place for place in new if place not in old or essence(old[place]) != essence(new[place])}
    is_function = all(new[place].co_flags & 2 for place in changed)  # CO_NEWLOCALS: no module's nor class's body
    if old.keys() != new.keys() or not changed or not is_function:
        return None
    return {place: new[place] for place in new if new[place].co_flags & 2}


def living(folder: Path) -> dict[tuple[str, str, int], list[FunctionType]]:
    """All functions of a folder's files, by their file and place."""
    found = collections.defaultdict(list)
    for function in [f for f in gc.get_objects() if isinstance(f, FunctionType)]:
        code = function.__code__
        if code.co_filename.startswith(str(folder)):
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(function)
    return found
