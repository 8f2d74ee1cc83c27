"""Nothing that lies beside a model is imported, by the tool or by the processes that it starts."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bnfold import isolation
from bnfold.options import Limits
from bnfold.verification.runtime import runner as runtime
from bnfold.verification.runtime.devices import RunMode
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("real_workers")

BNFOLD = [sys.executable, "-c", f"import sys; sys.path[0] = {str(ROOT)!r}; from bnfold.cli.main import run; run()"]
"""As the installed script starts it: the first entry of the search path is not the current directory."""

NAMES = (
    "random", "queue", "json", "signal", "threading", "typing", "dataclasses", "tempfile", "subprocess", "pickle",
    "contextlib", "logging", "runpy", "numpy", "onnx", "onnxruntime", "torch", "sitecustomize", "usercustomize",
)  # fmt: skip
PLANTED = """
with open({log!r}, "a") as file:
    file.write({name!r} + "\\n")
raise SystemExit("a planted module was imported")
"""


@pytest.fixture
def trap(tmp_path, samples):
    """A folder with models and modules of well-known names, each of which tells when it is executed."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("digits.onnx", "digits_corrupted.onnx", "digits_train.npz", "conv.onnx", "digits.pt2"):
        shutil.copy(samples / name, folder)
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED.format(log=str(tmp_path / "log"), name=name))
    return folder


def call(folder, *words, start=BNFOLD):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*start, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    log = folder.parent / "log"
    assert not log.exists(), f"{words}: imported {log.read_text().split()}"
    return done


@pytest.mark.parametrize(
    "words",
    [
        ("fold", "digits.onnx", "--json", "-"),
        ("fold", "digits.onnx", "conv.onnx", "--jobs", "2", "--output-dir", "out", "--json", "-"),
        ("verify", "digits.onnx", "digits.onnx", "--json", "-"),
        ("bench", "conv.onnx", "conv.onnx", "--runs", "5", "--json", "-"),
        ("calibrate", "digits_corrupted.onnx", "--data", "digits_train.npz", "--json", "-"),
        ("doctor",),
    ],
    ids=lambda words: words[0] + ("-jobs" if "--jobs" in words else ""),
)
def test_modules_beside_a_model_are_not_imported(words, trap):
    done = call(trap, *words)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines() if "--jobs" in words else [done.stdout] if "-" in words else []:
        found = json.loads(line)
        assert "error" not in found
        assert (found.get("verification") or found).get("verdict", "equivalent") == "equivalent"


def test_nor_beside_a_program_of_torch(trap):
    pytest.importorskip("torch")
    done = call(trap, "fold", "digits.pt2")
    assert done.returncode == 0, done.stderr


def test_python_m_bnfold_imports_nothing_either(tmp_path, samples):
    """From a folder that is not bnfold's own; what Python itself imports before bnfold begins is beyond reach."""
    shutil.copy(samples / "conv.onnx", tmp_path)
    (tmp_path / "queue.py").write_text("raise SystemExit('planted')\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bnfold", "fold", "conv.onnx"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "planted" not in done.stderr


def test_a_worker_does_not_see_the_users_pythonpath(tmp_path, samples, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('planted')\n")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    fed = [{"x": np.zeros((1, 3, 8, 8), np.float32)}]
    assert len(runtime.run(samples / "conv.onnx", fed, [RunMode("disable")], limits=Limits()).outputs[0]) == 1


def test_folders_of_installed_packages_come_behind_the_standard_library(tmp_path, monkeypatch):
    (tmp_path / "thing-1.0.dist-info").mkdir()
    (tmp_path / "thing.py").write_text("import os; print('thing', os.getcwd())\n")
    (tmp_path / "random.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    command = isolation.command("thing")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.startswith("thing")
    command[-1] = "random"
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "planted" not in done.stderr


def test_the_search_path_keeps_its_order():
    own = ["/lib/python3.11", "/venv/site-packages", "/work/bnfold"]
    passed = ["/pythonpath", "/venv/site-packages", "/work/bnfold"]
    expected = ["/lib/python3.11", "/pythonpath", "/venv/site-packages", "/work/bnfold"]
    assert isolation.search_path(own, passed) == expected


def test_what_is_trusted_may_import_the_users_own_modules(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("print('mine')\n")
    monkeypatch.chdir(tmp_path)
    for trusted, said in ((True, "mine\n"), (False, "")):
        command = isolation.command("mine", trusted=trusted)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == said
