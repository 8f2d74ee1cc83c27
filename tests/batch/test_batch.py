"""Many models: shared out, one by one or side by side; failures, dying workers, runs that go on where they stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import bnfold
from bnfold.api import FoldOptions
from bnfold.batch import data as fleet_data
from bnfold.batch.processes import Processes, WorkerDied
from bnfold.cli.main import main
from bnfold.errors import InputError, UsageError
from bnfold.io.source import FileSource
from bnfold.options import InputOptions, RunOptions, VerifyOptions
from tests.support import interruptible

QUICK = FoldOptions(verify=None)
NAMES = ("conv", "half", "gemm_beta", "if_branches", "two_consumers", "digits")


@pytest.fixture
def models(samples, tmp_path):
    for name in NAMES:
        shutil.copy(samples / f"{name}.onnx", tmp_path)
    return [tmp_path / f"{name}.onnx" for name in NAMES]


def test_outcomes_are_the_same_however_the_models_are_shared_out(models, tmp_path):
    plain = list(bnfold.fold_many(models, QUICK, output_dir=tmp_path / "plain"))
    with Processes(2) as processes:
        shared = list(bnfold.fold_many(models, QUICK, output_dir=tmp_path / "shared", executor=processes))
    with ThreadPoolExecutor(2) as threads:
        threaded = list(bnfold.fold_many(models, QUICK, output_dir=tmp_path / "threaded", executor=threads))
    for name in NAMES:
        written = [(tmp_path / folder / f"{name}.onnx").read_bytes() for folder in ("plain", "shared", "threaded")]
        assert written[0] == written[1] == written[2]
    for outcomes in (shared, threaded):
        assert {o.model: o.result["summary"] for o in outcomes} == {o.model: o.result["summary"] for o in plain}


def test_a_failing_model_is_an_outcome(models, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(models[0].read_bytes()[:200])
    outcomes = list(bnfold.inspect_many([models[0], bad, models[1]]))
    assert [outcome.exit_code for outcome in outcomes] == [0, 4, 0]
    assert outcomes[1].error["message"].startswith(str(bad))
    assert outcomes[1].to_dict()["model"] == {"path": str(bad)}


def test_a_refused_fold_is_reported_with_its_verdict(models, tmp_path, monkeypatch):
    """The outputs alone name no fold that could be left out."""
    from dataclasses import replace

    from bnfold.rules import conv as linear

    real = linear.fold_linear

    def wrong(*arguments):
        new, offset = real(*arguments)
        return replace(new, gain=new.gain * 1.001), offset

    monkeypatch.setattr(linear, "fold_linear", wrong)
    outputs = FoldOptions(verify=VerifyOptions(checks=("outputs",)))
    (outcome,) = bnfold.fold_many([tmp_path / "digits.onnx"], outputs)
    assert outcome.exit_code == 1
    assert outcome.result["verification"]["verdict"] == "different"
    assert not (tmp_path / "digits.folded.onnx").exists()


def test_targets_that_clash_are_refused(models, tmp_path):
    (tmp_path / "other").mkdir()
    counterpart = shutil.copy(models[0], tmp_path / "other")
    with pytest.raises(UsageError, match="one file"):
        bnfold.fold_many([models[0], counterpart], output_dir=tmp_path / "out")


def test_workers_in_another_folder_find_the_data(samples, tmp_path, monkeypatch):
    """They look where the user does, and errors and results say what the user wrote."""
    shutil.copy(samples / "conv.onnx", tmp_path)
    (info,) = onnx.load(tmp_path / "conv.onnx").graph.input
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "a.npy", np.ones([dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim], "f4"))
    for data in ("a.npy", "nope.npy"):
        monkeypatch.chdir(tmp_path)
        options = FoldOptions(verify=VerifyOptions(runs=RunOptions(inputs=InputOptions(data=Path(data)))))
        outcomes = bnfold.fold_many(["conv.onnx"], options, force=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        (outcome,) = outcomes
        if data == "a.npy":
            assert outcome.result["verification"]["inputs"]["source"] == data
            assert outcome.comparison.verification.inputs["source"] == data
        else:
            assert outcome.error["message"].startswith("nope.npy: No such file or directory")
            assert str(tmp_path) not in outcome.error["message"]


class TestJournal:
    def run(self, models, folder, options=QUICK):
        outcomes = bnfold.fold_many(models, options, output_dir=folder / "out", manifest=folder / "manifest")
        return {Path(outcome.model).stem: outcome for outcome in outcomes}

    def test_what_is_done_and_unchanged_is_skipped(self, models, tmp_path):
        first = self.run(models, tmp_path)
        assert not any(outcome.skipped or outcome.error for outcome in first.values())
        second = self.run(models, tmp_path)
        assert all(outcome.skipped for outcome in second.values())
        assert [o.result for o in second.values()] == [o.result for o in first.values()]

    def test_what_has_changed_is_done_again(self, models, tmp_path, samples):
        self.run(models, tmp_path)
        shutil.copy(samples / "channels_last.onnx", models[0])
        (tmp_path / "out" / "half.onnx").unlink()
        done = self.run(models, tmp_path)
        assert {name for name, outcome in done.items() if not outcome.skipped} == {"conv", "half"}
        assert not any(outcome.error for outcome in done.values())
        onnx.checker.check_model(str(tmp_path / "out" / "conv.onnx"))

    def test_what_somebody_else_wrote_is_not_replaced(self, models, tmp_path):
        self.run(models, tmp_path)
        (tmp_path / "out" / "half.onnx").write_bytes(b"precious")
        assert self.run(models, tmp_path)["half"].exit_code == 2
        assert (tmp_path / "out" / "half.onnx").read_bytes() == b"precious"

    def test_the_same_name_in_another_folder_is_another_model(self, models, tmp_path, monkeypatch):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            shutil.copy(models[0], tmp_path / name / "m.onnx")
            monkeypatch.chdir(tmp_path / name)
            (outcome,) = bnfold.fold_many(["m.onnx"], QUICK, manifest=tmp_path / "manifest")
            assert not outcome.skipped
            assert (tmp_path / name / "m.folded.onnx").exists()

    def test_other_options_are_another_run(self, models, tmp_path):
        self.run(models, tmp_path)
        again = self.run(models, tmp_path, FoldOptions(verify=None, threshold=True))
        assert not any(outcome.skipped for outcome in again.values())

    def test_what_models_are_fed_counts_wherever_it_lies(self, samples, tmp_path, monkeypatch):
        model = shutil.copy(samples / "conv.onnx", tmp_path)
        (info,) = onnx.load(model).graph.input
        shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        monkeypatch.chdir(tmp_path)

        def skipped(data):
            inputs = InputOptions(data=Path(data))
            options = FoldOptions(verify=VerifyOptions(runs=RunOptions(inputs=inputs)))
            outcome = self.run([model], tmp_path, options)["conv"]
            assert outcome.error is None, outcome.error
            assert outcome.result["verification"]["inputs"]["source"] == data
            return outcome.skipped

        np.save("a.npy", np.ones(shape, "f4"))
        assert [skipped("a.npy"), skipped("a.npy")] == [False, True]
        np.save("a.npy", np.full(shape, 2.0, "f4"))
        assert [skipped("a.npy"), skipped("a.npy")] == [False, True]
        for folder in ("d", "d/test_data_set_0"):
            (tmp_path / folder).mkdir()
            for value in (3.0, 4.0):
                tensor = onnx.numpy_helper.from_array(np.full(shape, value, "f4"))
                (tmp_path / folder / "input_0.pb").write_bytes(tensor.SerializeToString())
                assert [skipped("d"), skipped("d")] == [False, True]

    def test_data_is_read_once_for_all_models(self, models, tmp_path, monkeypatch):
        read = []
        monkeypatch.setattr(fleet_data, "FileSource", lambda path: read.append(path) or FileSource(path))
        np.save(tmp_path / "a.npy", np.ones(3, "f4"))
        inputs = InputOptions(data=tmp_path / "a.npy")
        self.run(models, tmp_path, FoldOptions(verify=VerifyOptions(("structure",), RunOptions(inputs=inputs))))
        assert read == [tmp_path / "a.npy"]

    def test_external_data_counts(self, samples, tmp_path):
        for name in ("external_data.onnx", "external_data.data"):
            if not (samples / name).exists():
                pytest.skip("no external sample")
            shutil.copy(samples / name, tmp_path)
        model = tmp_path / "external_data.onnx"
        self.run([model], tmp_path)
        data = tmp_path / "external_data.data"
        data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
        assert not self.run([model], tmp_path)["external_data"].skipped

    def test_a_line_that_was_cut_short_is_forgotten(self, models, tmp_path):
        self.run(models, tmp_path)
        manifest = tmp_path / "manifest"
        manifest.write_bytes(manifest.read_bytes()[:-30])
        assert [name for name, outcome in self.run(models, tmp_path).items() if not outcome.skipped] == ["digits"]
        assert all(outcome.skipped for outcome in self.run(models, tmp_path).values())

    def test_a_file_that_is_no_journal_stays_as_it_is(self, models, tmp_path):
        (tmp_path / "manifest").write_text("my notes\nof last week\n")
        with pytest.raises(InputError, match="manifest"):
            self.run(models, tmp_path)
        assert (tmp_path / "manifest").read_text() == "my notes\nof last week\n"


class TestProcesses:
    def test_a_dying_worker_takes_its_own_task_only(self):
        with Processes(2) as processes:
            lost = processes.submit(signal.raise_signal, signal.SIGKILL)
            others = [processes.submit(os.getpid) for _ in range(6)]
            with pytest.raises(WorkerDied):
                lost.result()
            assert os.getpid() not in {other.result() for other in others}

    def test_an_interrupted_run_ends_at_once_and_kills_nobody_else(self):
        import multiprocessing

        other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        other.start()
        start = time.monotonic()
        processes = Processes(2)
        futures = [processes.submit(time.sleep, 60) for _ in range(4)]
        time.sleep(2)
        processes.shutdown(cancel_futures=True)
        assert time.monotonic() - start < 20
        assert other.is_alive()
        other.kill()
        other.join()
        assert all(future.cancelled() or future.exception() for future in futures)

    def test_a_worker_that_is_killed_in_the_middle_loses_nothing(self, models, tmp_path):
        many = [shutil.copy(models[0], tmp_path / f"m{k}.onnx") for k in range(12)]
        with Processes(2) as processes:
            victim = processes.submit(os.getpid).result()
            outcomes = bnfold.fold_many(many, QUICK, output_dir=tmp_path / "out", executor=processes)
            done = [next(outcomes)]
            os.kill(victim, signal.SIGKILL)
            done += outcomes
            assert victim not in {processes.submit(os.getpid).result() for _ in range(4)}
        assert [outcome.error for outcome in done] == [None] * 12


@pytest.mark.slow
def test_a_cluster_whose_worker_is_killed(models, tmp_path):
    distributed = pytest.importorskip("distributed")
    many = [shutil.copy(tmp_path / "digits.onnx", tmp_path / f"m{k}.onnx") for k in range(10)]
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        victim, *_ = client.run(os.getpid).values()
        outcomes = bnfold.fold_many(many, output_dir=tmp_path / "out", executor=client.get_executor(pure=False))
        done = [next(outcomes)]
        os.kill(victim, signal.SIGKILL)
        done += outcomes
    assert [outcome.error for outcome in done] == [None] * 10
    assert {outcome.result["verification"]["verdict"] for outcome in done} == {"equivalent"}
    assert len(list((tmp_path / "out").glob("*.onnx"))) == 10


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def here(self, models, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def call(self, *words):
        return CliRunner().invoke(main, words)

    def test_a_table_json_lines_and_the_first_failure(self):
        words = ("conv.onnx", "nope.onnx", "digits.onnx", "--output-dir", "out", "--no-verify", "--json", "all.jsonl")
        result = self.call("fold", *words)
        assert result.exit_code == 4
        rows = [line.split("\t") for line in result.stdout.splitlines()]
        assert rows == [
            ["MODEL", "RESULT", "FOLDED", "KEPT", "WRITTEN TO"],
            ["conv.onnx", "folded", "1 of 1", "", "out/conv.onnx"],
            ["nope.onnx", "failed", "", "", ""],
            ["digits.onnx", "folded", "3 of 3", "", "out/digits.onnx"],
            ["Folded 2 of 3 models, 1 failed; 4 of 4 BatchNorms folded"],
        ]
        assert result.stderr.count("nope.onnx") == 1
        assert result.output.endswith(result.stderr)
        lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
        assert [line.get("error", {}).get("exit_code") for line in lines] == [None, 4, None]
        assert lines[0]["output"]["path"] == "out/conv.onnx"

    def test_processes_and_a_journal(self):
        words = ("fold", ".", "--output-dir", "out", "--no-verify", "--jobs", "2", "--resume", "manifest")
        assert self.call(*words).exit_code == 0
        result = self.call(*words)
        assert result.exit_code == 0
        assert "6 done before" in result.stdout
        assert self.call("inspect", ".", "--jobs", "2", "--strict").exit_code == 1

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("fold", "conv.onnx", "--jobs", "2", "--dask", "x:1"), 2),
            (("fold", "-", "conv.onnx"), 2),
            (("inspect", "conv.onnx", "--jobs", "0"), 2),
            (("inspect", "conv.onnx", "--resume", "."), 4),
            (("inspect", "conv.onnx", "--resume", "half.onnx"), 4),
        ],
    )
    def test_calls_that_make_no_sense(self, words, code):
        assert self.call(*words).exit_code == code
        assert Path("half.onnx").read_bytes()[:1] == b"\x08"

    @pytest.mark.slow
    def test_a_cluster_that_is_not_there(self):
        pytest.importorskip("distributed")
        result = self.call("fold", "conv.onnx", "--dask", "127.0.0.1:1")
        assert result.exit_code == 3
        assert "scheduler" in result.stderr

    def test_ctrl_c_ends_the_workers(self):
        command = [sys.executable, "-m", "bnfold", "fold", ".", "--jobs", "2", "--output-dir", "out"]
        output = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, preexec_fn=interruptible, **output)
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        assert b"Traceback" not in error
        assert not [name for name in os.listdir("out") if name.startswith(".bnfold")]
