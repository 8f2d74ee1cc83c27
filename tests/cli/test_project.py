"""What surrounds the commands: pyproject.toml, progress, completion, suggestions, the doctor."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from bnfold.cli import schema
from bnfold.progress import listening, report, to_file
from bnfold.report import bar
from tests.support import SCHEMA, call

pytest.importorskip("onnxruntime")

PACKAGE = Path(schema.__file__).parent


@pytest.fixture
def here(tmp_path, monkeypatch, samples):
    (tmp_path / "models").mkdir()
    for name in ("conv.onnx", "half.onnx"):
        shutil.copy(samples / name, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def says(folder, text):
    (folder / "pyproject.toml").write_text(text)


def test_fold_and_verify_take_their_models_from_the_project(here):
    says(here, '[tool.bnfold]\nmodels = ["models/*.onnx"]\noutput-dir = "dist"\n[tool.bnfold.fold]\nforce = true\n')
    assert call("fold").exit_code == 0
    assert sorted(path.name for path in (here / "dist").iterdir()) == ["conv.onnx", "half.onnx"]
    result = call("verify", "--json", "-", "--checks", "structure,weights")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["verdict"] for line in lines] == ["equivalent"] * 2
    shutil.copy(here / "models" / "half.onnx", here / "dist" / "conv.onnx")
    assert call("verify").exit_code == 1
    (here / "dist" / "half.onnx").unlink()
    result = call("verify")
    assert result.exit_code == 1, "different counts more than missing"
    assert "half.onnx" in result.stderr


def test_it_is_found_from_folders_below(here, monkeypatch):
    says(
        here,
        '[tool.bnfold]\nmodels = [{ model = "models/conv.onnx", output = "out/folded.onnx" }, "models/half.onnx"]\n',
    )
    monkeypatch.chdir(here / "models")
    assert call("fold").exit_code == 0
    assert (here / "out" / "folded.onnx").exists()
    assert (here / "models" / "half.folded.onnx").exists()
    assert call("verify", "--checks", "structure,weights").exit_code == 0
    assert call("inspect").exit_code == 0


def test_options_are_defaults_and_the_command_line_wins(here):
    says(
        here, '[tool.bnfold.verify]\nchecks = "structure"\nshape = ["x:1,3,8,8"]\n[tool.bnfold.fold]\nverify = false\n'
    )
    assert "Not verified" in call("fold", "models/conv.onnx").output
    result = call("verify", "models/conv.onnx", "models/conv.folded.onnx", "--json", "-")
    assert [check["check"] for check in json.loads(result.stdout)["checks"]] == ["structure"]
    result = call("verify", "models/conv.onnx", "models/conv.folded.onnx", "--json", "-", "--checks", "weights")
    assert [check["check"] for check in json.loads(result.stdout)["checks"]] == ["weights"]


def test_paths_are_relative_to_the_project(here, monkeypatch):
    says(here, '[tool.bnfold.inspect]\njson = "result.json"\n')
    monkeypatch.chdir(here / "models")
    assert call("inspect", "conv.onnx").exit_code == 0
    assert (here / "result.json").exists()


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("[tool.bnfold]\nmodel = []", 2, "did you mean 'models'"),
        ("[tool.bnfold]\nmodels = 3", 2, "models is a list"),
        ("[tool.bnfold]\nmodels = [3]", 2, "neither a path nor a table"),
        ('[tool.bnfold]\nmodels = [{ output = "a" }]', 2, "neither a path nor a table"),
        ('[tool.bnfold]\nmodels = ["no/*.onnx"]', 4, "no file matches"),
        ('[tool.bnfold]\nmodels = [{ model = "models/*.onnx", output = "a.onnx" }]', 2, "is several models"),
        ("[tool.bnfold]\nfold = 1", 2, "is no table"),
        ("[tool]\nbnfold = 1", 2, "is no table"),
        ("[tool.bnfold.fold]\nstrikt = true", 2, "did you mean 'strict'"),
        ("[tool.bnfold.fold]\nstrict = 'yes'", 2, "takes true or false"),
        ("[tool.bnfold.fold]\nk = [1]", 2, "takes one value"),
        ("[tool.bnfold.fold]\ndevice = true", 2, "takes one value"),
        ("[tool.bnfold.fold]\nallow-unsafe-load = true", 2, "only the command line may set it"),
        ("[tool.bnfold.fold]\nin-place = true", 2, "only the command line may set it"),
        ("[tool.bnfold.fold]\njobs = 'x'", 2, "--jobs"),
        ("[tool.bnfold", 4, "it is no TOML"),
        ("[project]\nname = 'other'", 2, "no model is given"),
        ("[tool.bnfold.fold]\ndask = 'tcp://x'", 2, "only the command line may set it"),
        ("[tool.bnfold.fold]\nreport = ['html=../x.html']", 2, "lies outside of the project"),
        ("[tool.bnfold.fold]\nreport = ['html=/tmp/x.html']", 2, "lies outside of the project"),
        ("[tool.bnfold.fold]\njson = '/tmp/x.json'", 2, "lies outside of the project"),
        ('[tool.bnfold.fold]\njson = "\\u0000"', 2, "NUL"),
        ("[tool.bnfold.fold]\njobs = 1979-05-27", 2, "takes one value"),
        ('[tool.bnfold]\nmodels = ["models/conv.onnx"]\noutput-dir = "../elsewhere"', 2, "lies outside of the project"),
        ('[tool.bnfold]\nmodels = [{ model = "models/conv.onnx", output = "link/x.onnx" }]', 2, "lies outside"),
        ("# bnfold\nx = " + "[" * 5000 + "]" * 5000, 4, "it is no TOML"),
    ],
)
def test_what_a_project_may_not_say(here, text, code, line):
    says(here, text)
    (here / "link").symlink_to(here.parent)
    result = call("fold")
    assert result.exit_code == code, result.output
    assert line in result.stderr
    assert len(result.stderr.splitlines()) <= 2


def test_reports_are_in_the_project_and_have_names_of_their_own(here, monkeypatch):
    """Two models of one name must not share a report: the worse would be lost."""
    for folder in ("a", "b"):
        (here / folder).mkdir()
        shutil.copy(here / "models" / "conv.onnx", here / folder / "m.onnx")
    report = '[tool.bnfold.verify]\nreport = ["json=reports/{name}.json"]\n'
    says(here, f'[tool.bnfold]\nmodels = ["a/m.onnx", "b/m.onnx"]\n{report}')
    assert call("fold", "--no-verify").exit_code == 0
    shutil.copy(here / "models" / "half.onnx", here / "a" / "m.folded.onnx")
    monkeypatch.chdir(here / "models")
    assert call("verify", "--quiet").exit_code == 1
    found = sorted((here / "reports").iterdir())
    assert len(found) == 2
    assert sorted(json.loads(path.read_text())["verdict"] for path in found) == ["different", "equivalent"]


def test_the_doctor_looks_at_every_table(here):
    says(here, "[tool.bnfold.calibrate]\nfreze-training-mode = true\n")
    result = call("doctor")
    assert result.exit_code == 3
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    assert ["ok", "device cpu      ran a model"] in [[first, *rest] for first, *rest in lines]
    assert {first for first, *_ in lines} >= {"ok", "FAIL"} and "1 of " in lines[-1][0] + " " + lines[-1][1]
    assert "did you mean 'freeze-training-mode'" in result.output


def test_reports_of_several_pairs_have_names(here):
    says(here, '[tool.bnfold]\nmodels = ["models/*.onnx"]\n')
    assert call("fold", "--no-verify").exit_code == 0
    assert "write {name}" in call("verify", "--report", "junit=all.xml").stderr
    assert call("verify", "--checks", "structure,weights", "--report", "junit={name}.xml", "--quiet").exit_code == 0
    assert sorted(path.name for path in here.glob("*.xml")) == ["conv.folded.xml", "half.folded.xml"]


def test_the_schema_for_editors_is_the_options(here):
    shipped = json.loads((PACKAGE / "pyproject.schema.json").read_text())
    assert shipped == schema.schema(), "python -m bnfold.cli.schema writes it again"
    good = {"models": ["a.onnx", {"model": "b.onnx", "output": "c.onnx"}], "fold": {"strict": True, "only": ["x"]}}
    jsonschema.validate(good, shipped)
    for bad in (
        {"model": []},
        {"fold": {"strict": 1}},
        {"fold": {"allow-unsafe-load": True}},
        {"verify": {"tf32": "x"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, shipped)


# --- progress


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_only_for_long_work(monkeypatch):
    screen = Screen()
    with bar.Bar(screen) as short:
        short(1, 10, "quick")
    assert screen.getvalue() == ""
    monkeypatch.setattr(bar, "PATIENCE", 0.0)
    with bar.Bar(screen, color=False) as long:
        for step in range(3):
            long(step, 3, "slow work")
    assert "slow work" in screen.getvalue()


def test_nobody_listens_outside():
    is_listening = []
    report(1, 2, "before")
    with listening(lambda *words: is_listening.append(words)):
        report(3, 4, "inside")
    report(5, 6, "after")
    assert is_listening == [(3, 4, "inside")]


def test_a_process_tells_by_a_file(tmp_path):
    listener = to_file(tmp_path / "progress")
    listener(3, None, "nobody knows")
    assert not (tmp_path / "progress").exists()
    listener(3, 7, "work")
    assert (tmp_path / "progress").read_text() == "3 7"


def test_verification_tells_how_far_it_is(tmp_path, samples):
    from bnfold.api import fold

    is_listening = []
    with listening(lambda *words: is_listening.append(words)):
        fold(samples / "digits.onnx", tmp_path / "out.onnx")
    assert {what for _, _, what in is_listening} >= {"the float64 run and the subgraphs", "MiB written"}


# --- completion, suggestions, the doctor


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_completion_is_printed(shell, word):
    result = call("completion", shell)
    assert result.exit_code == 0
    assert "_BNFOLD_COMPLETE" in result.output
    assert word in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bnfold ver", "verify"),
        ("bnfold fold --external-d", "--external-data"),
        ("bnfold fold --external-data k", "keep"),
        ("bnfold inspect mo", "file,mo"),
        ("bnfold inspect --data d", "file,d"),
    ],
)
def test_completion_completes(words, expected, tmp_path):
    import os

    env = {**os.environ, "_BNFOLD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "from bnfold.cli.main import main; main(prog_name='bnfold')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert expected in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_the_code():
    code = call("completion", "bash").output
    done = subprocess.run(["bash", "-c", f"{code}\ncomplete -p bnfold"], capture_output=True, text=True, check=True)
    assert "_bnfold_completion" in done.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("flod", "x"), "did you mean 'bnfold fold'"),
        (("xyzzy",), "commands: fold, inspect"),
        (("new.onnx",), "did you mean 'bnfold fold new.onnx'?"),
        (("models/conv.onnx", "--force"), "did you mean 'bnfold fold models/conv.onnx'?"),
        (("fold", "--stirct", "x"), "--strict"),
        (("fold", "models/conv.onnx", "--only", "bn_b"), "did you mean"),
    ],
)
def test_did_you_mean(words, line, here):
    result = call(*words)
    assert result.exit_code == 2
    assert line in result.stderr


def test_the_doctor(here):
    result = call("doctor", "--json", "-")
    found = json.loads(result.stdout)
    jsonschema.validate(found, SCHEMA)
    states = {finding["subject"]: finding["state"] for finding in found["findings"]}
    assert states["device cpu"] == "ok"
    assert states["onnx"] == "ok"
    assert result.exit_code == (0 if found["healthy"] else 3)
    lines = call("doctor").stdout.splitlines()
    marks = {"ok": "ok  ", "missing": "--  ", "broken": "FAIL"}
    for finding in found["findings"]:
        assert any(line.startswith(f"{marks[finding['state']]}  {finding['subject']} ") for line in lines)
    assert lines[-1].startswith("Everything that is needed works") is found["healthy"]
    says(here, "[tool.bnfold]\nmodel = []")
    assert all(f["remedy"] for f in found["findings"] if f["state"] != "ok" and f["subject"] != "pyproject.toml")


def test_the_doctor_sees_what_is_missing_and_what_is_broken(monkeypatch):
    import importlib.metadata
    import importlib.util

    from bnfold import diagnostics as doctor

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = {finding.subject: finding for finding in doctor.diagnose().findings}
    assert found["torch"].state == "missing"
    assert "bnfold[torch]" in found["torch"].remedy
    assert found["numpy"].state == "broken"
    assert "device cpu" not in found
    monkeypatch.undo()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")
    assert any("overwrite each other's files" in finding.detail for finding in doctor._runtimes())
