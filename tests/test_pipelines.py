"""What other people's pipelines take from here: valid by the published schemas, and run as the pipelines would."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
yaml = pytest.importorskip("ruamel.yaml")

ROOT = Path(__file__).parents[1]


def loaded(path):
    return yaml.YAML(typ="safe").load((ROOT / path).read_text())


def validate(schema, path):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "path"), [("github-actions", "action.yml"), ("gitlab-ci", "integrations/gitlab-ci.yml")]
)
def test_valid_by_the_published_schema(schema, path):
    validate(schema, ROOT / path)


def test_the_workflow_that_the_page_shows_is_one(tmp_path):
    page = (ROOT / "docs/pipelines.md").read_text()
    (tmp_path / "workflow.yml").write_text(page.split("```yaml\n", 1)[1].split("```", 1)[0])
    validate("github-workflows", tmp_path / "workflow.yml")


def test_schemas_are_schemas():
    pytest.importorskip("check_jsonschema")
    schemas = [str(path) for path in (ROOT / "bnfold").rglob("*schema.json")]
    assert len(schemas) == 2
    command = [sys.executable, "-m", "check_jsonschema", "--check-metaschema", *schemas]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_are_hooks():
    """By pre-commit's own rules."""
    pytest.importorskip("pre_commit")
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    hooks = loaded(".pre-commit-hooks.yaml")
    assert [hook["id"] for hook in hooks] == ["bnfold-verify", "bnfold-inspect"]
    for hook in hooks:
        assert {"id", "name", "entry", "language", "files"} <= hook.keys()
        words = hook["entry"].split()
        assert words[0] == "bnfold"


@pytest.fixture
def project(tmp_path, samples):
    """A repository with models and a project file."""
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    for name in ("conv.onnx", "half.onnx"):
        shutil.copy(samples / name, folder / "models")
    (folder / "pyproject.toml").write_text('[tool.bnfold]\nmodels = ["models/*.onnx"]\noutput-dir = "dist"\n')
    return folder


@pytest.fixture
def runner(tmp_path):
    """A runner's temporary folder, with bnfold as the action's first step installs it: here, a link to this one."""
    binaries = tmp_path / "runner" / "bnfold" / "bin"
    binaries.mkdir(parents=True)
    for name, line in (
        ("bnfold", f'exec "{sys.executable}" -m bnfold "$@"'),
        ("python", f'exec "{sys.executable}" "$@"'),
    ):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" {line}\n')
        script.chmod(0o755)
    return tmp_path / "runner"


def step(action, runner, project, **inputs):
    """Run the action's step as a runner does; exit code, outputs, summary, log."""
    env = {
        **os.environ,
        "RUNNER_TEMP": str(runner),
        "GITHUB_OUTPUT": str(runner / "output"),
        "GITHUB_STEP_SUMMARY": str(runner / "summary"),
    }
    for name, value in action["env"].items():
        key = value.removeprefix("${{ inputs.").removesuffix(" }}")
        env[name] = inputs.get(key, loaded("action.yml")["inputs"][key]["default"])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", action["run"]]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    shown_text = (runner / "output").read_text() if (runner / "output").exists() else ""
    outputs = dict(line.split("=", 1) for line in shown_text.splitlines())
    summary = (runner / "summary").read_text() if (runner / "summary").exists() else ""
    return done.returncode, outputs, summary, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_action_judges_a_project(runner, project):
    _, verify = loaded("action.yml")["runs"]["steps"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "bnfold", "fold"], cwd=project, env=env, check=True, capture_output=True)
    code, outputs, summary, log = step(verify, runner, project, checks="structure,weights,outputs")
    assert code == 0, log
    report = Path(outputs.pop("report"))
    assert outputs == {"verdict": "equivalent", "device": "cpu"}
    assert sorted(path.name for path in report.iterdir()) == ["conv.html", "conv.json", "half.html", "half.json"]
    assert summary.count("## bnfold: equivalent") == 2
    assert "::notice" in log
    assert json.loads((report / "conv.json").read_text())["verdict"] == "equivalent"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_action_fails_for_a_wrong_model(runner, project):
    _, verify = loaded("action.yml")["runs"]["steps"]
    pair = {"original": "models/conv.onnx", "folded": "models/half.onnx"}
    code, outputs, summary, log = step(verify, runner, project, **pair, arguments="--k 3 --quiet")
    assert code == 1
    assert outputs["verdict"] == "different"
    (runner / "output").unlink()
    again = {"original": "models/conv.onnx", "folded": "models/conv.onnx"}
    code, outputs, _, _ = step(verify, runner, project, **again, checks="structure,weights")
    assert (code, outputs["verdict"]) == (0, "equivalent"), "what an earlier use left must not count"
    (runner / "output").unlink()
    code, outputs, _, _ = step(verify, runner, project, original="models/conv.onnx", folded="models/none.onnx")
    assert (code, outputs["verdict"]) == (4, "inconclusive")
    assert "## bnfold: different" in summary
    assert "::error" in log


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_action_does_not_run_what_its_inputs_say(runner, project):
    _, verify = loaded("action.yml")["runs"]["steps"]
    name = "$(touch pwned);`touch pwned`"
    code, outputs, _, _ = step(verify, runner, project, original=name, arguments="--seed $(touch pwned)")
    assert code == 2
    assert outputs["verdict"] == "inconclusive"
    assert not (project / "pwned").exists()


@pytest.mark.slow
def test_the_action_installs_bnfold(tmp_path):
    install, _ = loaded("action.yml")["runs"]["steps"]
    env = {**os.environ, "RUNNER_TEMP": str(tmp_path), "SOURCE": str(ROOT), "EXTRAS": "cpu,html"}
    subprocess.run(["bash", "-e", "-c", install["run"]], env=env, check=True)
    subprocess.run([tmp_path / "bnfold" / "bin" / "bnfold", "doctor"], check=True)


def test_the_hooks_run(project):
    """As pre-commit runs them: verify without names, inspect with those of the files that changed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=project, env=env, capture_output=True, text=True
        ).returncode

    hooks = {hook["id"]: hook["entry"].split() for hook in loaded(".pre-commit-hooks.yaml")}
    assert run("bnfold", "fold", "--no-verify") == 0
    assert run(*hooks["bnfold-verify"], "--checks", "structure,weights") == 0
    assert run(*hooks["bnfold-inspect"], "models/conv.onnx", "models/half.onnx") == 0
    shutil.copy(ROOT / "sample_models" / "two_consumers.onnx", project / "models")
    assert run(*hooks["bnfold-inspect"], "models/two_consumers.onnx") == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_makefile(project):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["make", "-f", str(ROOT / "integrations/Makefile"), f"BNFOLD={sys.executable} -m bnfold", "verify"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (project / "dist").iterdir()) == ["conv.onnx", "half.onnx"]
    again = subprocess.run(command[:-1], cwd=project, env=env, capture_output=True, text=True, check=True)
    assert "fold models" not in again.stdout
