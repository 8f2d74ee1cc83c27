"""Targets and sources at the edge: loops of links, standard streams, former names of options."""

import pytest
from click.testing import CliRunner

from bnfold.cli.main import main
from tests.support import SAMPLES


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("conv.onnx", "digits.pt2"):
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    return tmp_path


def call(*words):
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("target", ["loop.onnx", "loop.onnx/below.onnx"])
def test_a_loop_of_links_is_no_target(here, target):
    (here / "loop.onnx").symlink_to("loop.onnx")
    assert call("fold", "conv.onnx", "--no-verify", "-o", target).exit_code == 5


def test_a_project_may_use_the_former_name_of_checks(here):
    (here / "pyproject.toml").write_text('[tool.bnfold.verify]\ngates = "weights"\n')
    assert call("fold", "conv.onnx", "--no-verify").exit_code == 0
    result = call("verify", "conv.onnx", "conv.folded.onnx")
    assert result.exit_code == 3
    assert "pass  weights" in result.output
    assert "structure:" not in result.output


def test_standard_input_is_not_measured(here):
    assert call("bench", "-", "conv.onnx").exit_code == 2


def test_standard_input_names_no_original(here):
    assert call("verify", "-").exit_code == 4
