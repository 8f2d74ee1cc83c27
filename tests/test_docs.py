"""Documentation that can't go stale: its examples are run, its tables compared with the code."""

import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import onnx
import pytest

from tests.transcripts import differences, shown

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["docs/batchnorm.md"])
def test_examples_print_what_they_say(page):
    result = doctest.testfile(str(ROOT / page), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0


def blocks(language, page="README.md"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


def here(command):
    """The command of a fresh machine, with this interpreter in place of the virtual environment's."""
    _, _, work = command.partition("pip install")
    work = work.partition(" && ")[2]
    work = work.replace(".venv/bin/bnfold", "PYTHON -m bnfold").replace(".venv/bin/python", "PYTHON")
    return work.replace("PYTHON", sys.executable)


def test_the_first_command_of_the_readme(tmp_path):
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    command = here(blocks("sh")[0])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True, env=env)
    assert "equivalent" in done.stdout
    accuracies = re.findall(r"(\d+) of 360 correct", done.stdout)
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1]


def test_the_python_of_the_readme(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    comments = re.findall(r"# (3 0 equivalent|/1/.*)", code)
    assert printed[:2] == comments


def test_the_configuration_that_the_page_shows_is_one():
    (text,) = blocks("toml", "docs/configuration.md")
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table = toml.loads(text)["tool"]["bnfold"]
    jsonschema.validate(table, json.loads((ROOT / "bnfold/cli/pyproject.schema.json").read_text()))


@pytest.mark.parametrize("page", ["README.md", "docs/statistics.md", "docs/tutorial.md"])
def test_transcripts(page, tmp_path):
    """What a page shows of commands is what they print, one after the other."""
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    (tmp_path / "sample_models" / "digits.folded.onnx").unlink(missing_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for block in blocks("console", page):
        command, _, expected = block.partition("\n")
        program, *words = command.removeprefix("$ ").split()
        words = ["-m", "bnfold", *words] if program == "bnfold" else words
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True, env=env
        )
        assert differences(done.stdout, expected) == []
        assert shown(expected) == expected, "a figure that depends on the processor"


@pytest.mark.parametrize("module", ["bnfold", "bnfold.api"])
def test_examples_in_docstrings(module, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted


def test_a_notebook_shows_a_table(samples):
    import bnfold

    text = bnfold.inspect(samples / "two_consumers.onnx")._repr_html_()
    assert text.count("<tr>") == 2
    assert "consumers: previous layer" in text
    made = bnfold.calibrate(onnx.load(samples / "digits_corrupted.onnx"), samples / "digits_train.npz")
    assert "3 of 3 BatchNorms calibrated" in made._repr_html_()
    result = bnfold.fold(onnx.load(samples / "digits.onnx"))
    assert "equivalent" in result._repr_html_()
    as_text = bnfold.results.folding.as_comparison(result)._repr_html_()
    assert as_text.count('<td style="color:#146c2e">pass</td>') == 3


def test_every_sample_is_described():
    names = {path.stem for path in (ROOT / "sample_models").glob("*.onnx") if ".folded" not in path.name}
    described = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "sample_models/README.md").read_text(), re.M))
    assert names == described


def test_the_page_of_operators_is_the_table_in_the_code():
    from bnfold.rules.table import RULES

    rows = re.findall(r"^\| `([\w.:]+)` \| (.*) \| (.*) \|$", (ROOT / "docs/operators.md").read_text(), re.M)
    assert rows == [(op, rule.upstream, rule.downstream) for op, rule in sorted(RULES.items())]


def test_every_rule_has_a_case_that_folds():
    from bnfold.rules.table import RULES
    from tests.rules.all_cases import CASES

    nodes = [node for case in CASES if case.folds for node in case.build().graph.node]
    covered = {f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes}
    torch_only = {"Linear", "Recurrent", "Std", "Var"}  # tests/frontends/torch/modules.py
    assert set(RULES) <= covered | torch_only
