"""CONTRIBUTING.md can't go stale: its commands are run, its paths exist, its lines are short."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
IN_CI = [line for line in COMMANDS if line.startswith(("ruff", "mypy"))]
RUN = [line for line in COMMANDS if line.startswith("python -m")]


def test_every_command_is_known_to_a_test():
    set_up = [line for line in COMMANDS if line.startswith((".venv/bin/pip install", ". .venv"))]
    assert sorted([*set_up, *IN_CI, *RUN]) == sorted(COMMANDS)


def test_the_checks_are_those_of_ci():
    ci = (ROOT / ".ci/run").read_text()
    assert IN_CI
    assert all(f".venv/bin/{line}" in ci for line in IN_CI)


@pytest.mark.parametrize("command", RUN)
def test_a_command_succeeds(command):
    """Tests are collected only: they run beside this one."""
    _, *words = shlex.split(command)
    words += ["--collect-only"] * ("pytest" in words)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_path_is_there():
    """Paths are given from the root or from the package; ``<operator>`` stands for any."""
    paths = {path for path in re.findall(r"`([\w./<>-]+/[\w.<>/-]*|[\w/]+\.py)`", TEXT) if "<" not in path}
    places = [ROOT, *(folder for folder in (ROOT / "bnfold").rglob("*") if folder.is_dir()), ROOT / "bnfold"]
    missing = {path for path in paths if not any((place / path).exists() for place in places)}
    assert not missing


def test_lines_are_short():
    assert [line for line in TEXT.splitlines() if len(line) > 100] == []
