"""The cases and matrix rows of all operators together: of each module in the ``cases`` folders."""

from importlib import import_module
from pathlib import Path

TESTS = Path(__file__).parents[1]

MODULES = [
    import_module(f"tests.{folder}.cases.{file.stem}")
    for folder in ("rules", "planner")
    for file in sorted((TESTS / folder / "cases").glob("*.py"))
]

CASES = [case for module in MODULES for case in module.CASES]
ROWS = [row for module in MODULES for row in getattr(module, "ROWS", ())]
