"""Start worker processes that import nothing from the folder a user works in; run as a script, be their entry point.

``python -m`` puts the current directory first on the module search path: a ``random.py`` beside a model would be
executed by a user who only wants to verify that model. Workers are started with ``-I``, which leaves out the current
directory, ``PYTHONPATH`` and the user's own site-packages. Folders that hold installed packages are passed on, and
come behind the standard library.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).absolute()

INSTALLED = (".dist-info", ".egg-info")
"""What an installer leaves beside a package. A folder without any holds a user's own modules; it is not passed on."""

PACKAGES = ("numpy", "onnx", "onnxruntime", "torch")
"""Packages that workers need, and that may also lie on ``PYTHONPATH`` as their sources do, without such a file."""


def command(module: str, *arguments: str, trusted: bool = False) -> list[str]:
    """Return the command line that runs ``module`` with ``arguments`` in an isolated interpreter.

    ``trusted`` passes on the current directory and the whole search path: for loading pickled modules, whose classes
    are defined in the user's own files.
    """
    folders = [str(Path(entry).absolute()) for entry in (*sys.path, *([os.curdir] if trusted else []))]
    passed = [folder for folder in dict.fromkeys(folders) if trusted or _is_installed(Path(folder))]
    flags = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
    return [sys.executable, *flags, str(HERE), json.dumps(passed), module, *arguments]


def _is_installed(folder: Path) -> bool:
    """Return True for a folder that packages were installed into, and for the one that bnfold itself is in."""
    if folder == HERE.parents[1]:
        return True
    try:
        if folder == Path.cwd():  # what lies beside a model is never searched
            return False
        names = os.listdir(folder)
    except OSError:
        return False
    return any(name.endswith(INSTALLED) for name in names) or any(
        (folder / package / "__init__.py").is_file() for package in PACKAGES
    )


def search_path(own: list[str], passed: list[str]) -> list[str]:
    """Return the search path of a worker: the standard library, then ``passed``, then the rest of its ``own``."""
    missing = [folder for folder in passed if folder not in own]
    packages = (index for index, entry in enumerate(own) if entry.endswith(("site-packages", "dist-packages")))
    place = next(packages, len(own))
    return [*own[:place], *missing, *own[place:]]


def main() -> None:
    """Set the search path and run the module that the command line names."""
    import runpy

    _, passed, module, *arguments = sys.argv
    sys.path[:] = search_path(sys.path, json.loads(passed))
    sys.argv = [module, *arguments]
    # With alter_sys the names of a worker's types are resolved in the worker, not here.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
