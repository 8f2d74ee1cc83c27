"""What goes wrong around bnfold: disks, permissions, files that change or vanish, signals, memory, two runs at once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnfold.api import FoldOptions, fold
from bnfold.errors import InputError, OutputError
from bnfold.io import folders, save
from tests.fuzz import crash_safety
from tests.support import ROOT, interruptible

QUICK = FoldOptions(verify=None)
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux's file systems and signals")


def bnfold(*words, cwd, **more):
    command = [sys.executable, "-m", "bnfold", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120, **more)


def one_line(done, code):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2


@pytest.fixture
def model(samples, tmp_path):
    return shutil.copy(samples / "digits.onnx", tmp_path / "model.onnx")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; the model has 88."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@linux
def test_a_full_disk(model, small_disk):
    (small_disk / "old.onnx").write_bytes(b"old")
    one_line(bnfold("fold", model, "-o", small_disk / "out.onnx", "--no-verify", cwd=small_disk.parent), 5)
    one_line(bnfold("fold", model, "-o", small_disk / "old.onnx", "--force", "--no-verify", cwd=small_disk.parent), 5)
    assert [entry.name for entry in small_disk.iterdir()] == ["old.onnx"]
    assert (small_disk / "old.onnx").read_bytes() == b"old"


@linux
def test_a_disk_that_is_read_only(model, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    one_line(bnfold("fold", model, "-o", small_disk / "out.onnx", "--no-verify", cwd=small_disk.parent), 5)


def test_an_input_that_vanishes_is_either_read_or_missed(model, tmp_path, monkeypatch):
    real = save._write_file

    def vanish(data, path):
        Path(model).unlink()
        real(data, path)

    monkeypatch.setattr(save, "_write_file", vanish)
    fold(model, tmp_path / "out.onnx", QUICK)  # it is open: what it was is folded
    assert (tmp_path / "out.onnx").exists()
    with pytest.raises(InputError):
        fold(model, tmp_path / "again.onnx", QUICK)


def test_an_input_that_changes_is_noticed(model, tmp_path, monkeypatch):
    real = save._write_file

    def change(data, path):
        real(data, path)
        with open(model, "r+b") as file:
            file.write(b"\x08\x09")

    monkeypatch.setattr(save, "_write_file", change)
    with pytest.raises(InputError, match="changed while"):
        fold(model, tmp_path / "out.onnx", QUICK)
    assert os.listdir(tmp_path) == ["model.onnx"]


@linux
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing(tmp_path, number, code):
    crash_safety.build(tmp_path / "model.onnx", layers=4)
    before = sorted(os.listdir(tmp_path))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bnfold", "fold", "model.onnx", "-o", "out.onnx"]
    output = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(words, cwd=tmp_path, env=env, preexec_fn=interruptible, **output)
    for _ in range(400):
        if sorted(os.listdir(tmp_path)) != before:
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in error
    assert sorted(os.listdir(tmp_path)) == before


@linux
def test_too_little_memory(samples, tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (150 * 2**20, 150 * 2**20))

    shutil.copy(samples / "digits.onnx", tmp_path / "model.onnx")
    done = bnfold("fold", "model.onnx", "--no-verify", cwd=tmp_path, preexec_fn=limit)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0 or (tmp_path / "model.folded.onnx").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".bnfold")]


def test_two_runs_into_one_target_never_mix(tmp_path):
    crash_safety.build(tmp_path / "model.onnx", layers=6)
    runs = [crash_safety.fold(tmp_path) for _ in range(3)]
    codes = sorted(run.wait() for run in runs)
    assert codes[0] == 0
    assert set(codes) <= {0, 2, 5}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".bnfold")]
    done = bnfold("verify", "model.onnx", "out.onnx", "--checks", "structure,weights", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_target_that_comes_into_being_meanwhile_is_not_replaced(model, tmp_path, monkeypatch):
    real = save._write_file

    def meanwhile(data, path):
        real(data, path)
        (tmp_path / "out.onnx").write_bytes(b"somebody else's")

    monkeypatch.setattr(save, "_write_file", meanwhile)
    with pytest.raises(OutputError, match="came into being"):
        fold(model, tmp_path / "out.onnx", QUICK)
    assert (tmp_path / "out.onnx").read_bytes() == b"somebody else's"


@linux
class TestSweeping:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(folders, "YOUNG", 0.0)

    def test_what_a_dead_process_left_goes(self, tmp_path):
        (tmp_path / ".bnfold-dead").mkdir()
        (tmp_path / ".bnfold-dead" / folders.OWNED).touch()
        (tmp_path / ".bnfold-dead" / "half").write_bytes(b"x")
        (tmp_path / ".bnfold-empty").mkdir()
        with folders.temporary(tmp_path) as live:
            assert os.listdir(tmp_path) == [live.name]
        assert os.listdir(tmp_path) == []

    def test_what_a_living_one_holds_stays(self, tmp_path):
        with folders.temporary(tmp_path) as first, folders.temporary(tmp_path) as second:
            assert sorted(os.listdir(tmp_path)) == sorted([first.name, second.name])

    @pytest.mark.parametrize("published", [False, True])
    def test_data_that_was_put_without_its_model_goes(self, tmp_path, published):
        dead = tmp_path / ".bnfold-dead"
        dead.mkdir()
        (dead / folders.OWNED).touch()
        for name in ("out.onnx", "out.onnx.data"):
            (dead / name).write_bytes(name.encode())
        folders.note(dead, "out.onnx", [dead / "out.onnx.data"])
        (dead / "out.onnx.data").rename(tmp_path / "out.onnx.data")
        if published:
            os.link(dead / "out.onnx", tmp_path / "out.onnx")
        folders.sweep(tmp_path, folders.PREFIX)
        assert sorted(os.listdir(tmp_path)) == (["out.onnx", "out.onnx.data"] if published else [])

    def test_other_peoples_files_stay(self, tmp_path):
        (tmp_path / "notes").mkdir()
        (tmp_path / ".bnfold-notes").mkdir()
        (tmp_path / ".bnfold-notes" / "mine").touch()
        (tmp_path / ".bnfold-odd").mkdir()
        (tmp_path / ".bnfold-odd" / folders.OWNED).touch()
        (tmp_path / ".bnfold-odd" / folders.NOTE).write_text('{"a": 1}')
        (tmp_path / ".bnfold-file").write_bytes(b"")
        (tmp_path / ".bnfold-link").symlink_to(tmp_path / "notes")
        folders.sweep(tmp_path, folders.PREFIX)
        assert sorted(os.listdir(tmp_path)) == [
            ".bnfold-file",
            ".bnfold-link",
            ".bnfold-notes",
            ".bnfold-odd",
            "notes",
        ]


@linux
@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_killed_at_a_random_moment(tmp_path, seed):
    import random

    rng = random.Random(seed)
    crash_safety.build(tmp_path / "model.onnx", layers=4)
    before = crash_safety.digests(tmp_path)
    assert crash_safety.fold(tmp_path).wait() == 0
    right = {name: digest for name, digest in crash_safety.digests(tmp_path).items() if name not in before}
    for name in right:
        (tmp_path / name).unlink()
    assert crash_safety.once(tmp_path, before, right, rng.uniform(0.2, 0.5)) in ("absent", "complete")


def test_nothing_speaks_to_the_network(samples, tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise RuntimeError('the network was asked')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from bnfold.cli.main import main; main(sys.argv[1:])"
    )
    words = [sys.executable, "-c", code, "fold", str(samples / "digits.onnx"), "-o", str(tmp_path / "out.onnx")]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)


def test_the_same_input_gives_the_same_bytes(samples, tmp_path):
    paths = sorted(samples.glob("*.onnx"))
    made = []
    for seed in ("0", "12345"):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        words = [sys.executable, "-m", "bnfold", "fold", *map(str, paths), "--no-verify", "--jobs", "1"]
        subprocess.run([*words, "--output-dir", str(tmp_path / seed)], env=env, check=True, capture_output=True)
        made.append({path.name: path.read_bytes() for path in (tmp_path / seed).rglob("*.onnx")})
    assert made[0].keys() == {path.name for path in paths}
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []
