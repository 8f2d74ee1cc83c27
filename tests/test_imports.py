"""Who may import whom: the flow of the house, and what the start costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bnfold"

PLANNING = {"options", "affine", "errors", "find", "folds", "graph", "merge", "ops", "apply", "reasons", "weights"}

ALLOWED = {
    "errors": set(),
    "clock": set(),
    "progress": set(),
    "options": {"batchnorm", "errors", "verification"},
    "reasons": set(),
    "affine": set(),
    "weights": {"affine"},
    "batchnorm": {"affine"},
    "graph": {"graph", "affine", "errors", "weights"},
    "ops": {"ops", "affine", "batchnorm", "graph", "reasons", "weights"},
    "find": {"affine", "batchnorm", "graph", "ops", "reasons"},
    "merge": {"affine", "find", "graph", "ops"},
    "folds": {"affine", "find", "graph", "ops", "reasons"},
    "flood": {"affine", "find", "folds", "graph", "ops", "reasons"},
    "ties": {"affine", "flood", "graph", "ops", "reasons"},
    "plan": {"affine", "find", "flood", "folds", "graph", "ops", "reasons", "ties"},
    "apply": {"affine", "find", "folds", "graph", "merge", "ops", "plan", "reasons", "weights"},
    "files": {"files", "errors", "options", "progress"},
    "statistics": {
        *PLANNING,
        "statistics",
        "batchnorm",
        "clock",
        "files",
        "programs",
        "progress",
        "report",
        "verification",
        "workflow",
        "",
    },
    "report": {
        "report",
        "bench",
        "statistics",
        "affine",
        "errors",
        "files",
        "find",
        "folds",
        "graph",
        "plan",
        "reasons",
        "verification",
        "",
    },
    "verification": {*PLANNING, "verification", "batchnorm", "files", "pipeline", "plan", "progress", ""},
    "doctor": {"files", "verification", ""},
    "opening": {"errors", "files", "options", "programs"},
    "workflow": {"clock", "errors", "files", "ops", "options", "pipeline", "programs", "report", "verification"},
    "bench": {"bench", "errors", "files", "report", "verification", ""},
    "fleet": {"fleet", "api", "errors", "files", "opening", "options", "report", ""},
    "programs": {*PLANNING, "programs", "clock", "files", "pipeline", "report", "verification", ""},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_against_the_flow(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    ours = {
        name.partition("bnfold")[2].lstrip(".").partition(".")[0] for name in imports(path) if name.startswith("bnfold")
    }
    if room in ALLOWED:
        assert ours <= ALLOWED[room], f"{room} must not import {ours - ALLOWED[room]}"


@pytest.mark.parametrize(
    ("module", "rooms"),
    [
        (
            "onnx",
            {"graph", "files", "verification", "programs", "statistics", "pipeline.py", "opening.py", "doctor.py"},
        ),
        ("torch", {"graph", "programs", "statistics", "opening.py"}),
    ],
)
def test_only_some_rooms_know_a_library(module, rooms):
    for path in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == module for name in imports(path)):
            assert path.relative_to(PACKAGE).parts[0] in rooms, path


def test_torch_is_imported_for_its_own_models_only():
    """Nothing that an ONNX model needs imports torch, not even through another module of ours."""
    names = "bnfold.api, bnfold.verification.checks.weights, bnfold.cli.fold"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_onnxruntime_is_imported_in_one_file():
    users = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "onnxruntime" in imports(path)]
    assert users == ["verification/worker.py"]


def test_only_the_command_line_prints_or_exits():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] == "cli":
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
