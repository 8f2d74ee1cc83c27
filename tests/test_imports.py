"""Which package may import which: the layers of bnfold, without a circle; and what a start costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bnfold"

LAYERS = (
    # lowest first: a package imports from lower layers and from itself, whether at the top, in a function or for types
    {"errors", "isolation", "numerics", "progress", "timing", "version", "wording"},
    {"ir", "options"},
    {"io", "rules"},
    {"frontends.onnx", "frontends.torch", "planner", "verification.runtime"},
    {"results", "verification.equivalence", "verification.reference"},
    {"calibration", "diagnostics", "report", "verification.measurement"},
    {"verification.checks"},
    {"verification.judge"},
    {"verification.onnx"},
    {"verification.torch"},
    {"models"},
    {"benchmark", "loading"},
    {"api"},
    {"batch"},
    {"cli", ""},
    {"__main__"},
)

LIBRARIES = {
    "onnx": {
        "calibration", "diagnostics", "frontends.onnx", "frontends.torch", "io", "ir", "loading", "models",
        "verification.equivalence", "verification.onnx", "verification.reference", "verification.runtime",
        "verification.torch",
    },
    "torch": {"calibration", "frontends.torch", "loading", "models", "verification.torch"},
    "click": {"cli", "report"},
    "rich": {"report"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
}  # fmt: skip
"""The packages that know a library; onnxruntime is known to one file."""


def name_of(path: Path) -> str:
    """The module of a file, without ``bnfold.``; the root is the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest that its name begins with."""
    known = set().union(*LAYERS)
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in known), module)


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, by its full name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(path: Path) -> set[str]:
    """The modules of bnfold that a file imports."""
    found = set()
    for name in imported(path):
        if name.split(".")[0] == "bnfold":
            inner = name.partition(".")[2]
            found.add(inner if inner in MODULES else inner.rpartition(".")[0])
    return found


def test_every_package_has_a_layer():
    empty = {"frontends", "verification"}  # packages of packages
    assert {package_of(module) for module in MODULES} - empty == set().union(*LAYERS)
    assert not any(own(MODULES[name]) for name in empty)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    package = package_of(module)
    for other in map(package_of, own(MODULES[module])):
        assert other == package or level[other] < level[package], f"{package} must not import {other}"


def test_no_modules_import_each_other():
    pending = {module: own(path) - {module} for module, path in MODULES.items()}
    while free := {module for module, needed in pending.items() if not needed}:
        pending = {module: needed - free for module, needed in pending.items() if module not in free}
    assert not pending, "these import each other, or import what does"


def test_packages_hold_no_implementation():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            held = [
                node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
            ]
            assert not held, path
            assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("library", LIBRARIES)
def test_only_some_packages_know_a_library(library):
    users = {package_of(name) for name, path in MODULES.items() if library in {i.split(".")[0] for i in imported(path)}}
    assert users <= LIBRARIES[library]


def test_onnxruntime_is_imported_in_one_file():
    users = [name for name, path in MODULES.items() if any(i.split(".")[0] == "onnxruntime" for i in imported(path))]
    assert users == ["verification.runtime.worker"]


def test_torch_is_imported_for_its_own_models_only():
    """Nothing that an ONNX model needs imports torch, not even through another module of ours."""
    names = "bnfold.api, bnfold.models.onnx, bnfold.models.fold, bnfold.verification.onnx.verify, bnfold.cli.fold"
    subprocess.run([sys.executable, "-c", f"import sys, {names}; assert 'torch' not in sys.modules"], check=True)


def test_only_the_command_line_prints_or_exits():
    for name, path in MODULES.items():
        if package_of(name) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "sys.exit", "exit"), path


def test_help_imports_nothing_heavy():
    code = (
        "import sys, bnfold.cli.main\n"
        "try: bnfold.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'onnx', 'numpy', 'onnxruntime', 'torch', 'rich', 'google'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "inspect" in done.stdout
