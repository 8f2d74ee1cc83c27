"""``bnfold bench``: both models by turns; text, JSON, picture; what it can't measure it says."""

import importlib.util
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

import bnfold
from bnfold.bench import BenchOptions, Level, Timing, _level, bench
from bnfold.cli import main
from bnfold.errors import InputError, UndecidedError
from bnfold.verification.inputs import InputOptions
from bnfold.verification.runtime import Limits

pytest.importorskip("onnxruntime")
SCHEMA = json.loads((Path(bnfold.__file__).parent / "report/schema.json").read_text())


@pytest.fixture
def pair(samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(samples / "digits.onnx", "digits.onnx")
    bnfold.fold("digits.onnx", "digits.folded.onnx")
    return "digits.onnx", "digits.folded.onnx"


def call(*words):
    return CliRunner().invoke(main, ["bench", *words])


def test_both_models_are_run_as_often_as_asked(pair):
    found = bench(*pair, BenchOptions(levels=("disable", "all"), runs=7, warmup=1))
    assert [level.level for level in found.levels] == ["disable", "all"]
    for level in found.levels:
        assert len(level.original.milliseconds) == len(level.folded.milliseconds) == 7
        assert min(*level.original.milliseconds, *level.folded.milliseconds) > 0
        assert level.low <= level.ratio <= level.high
    assert (found.nodes["original"], found.nodes["folded"]) == (11, 8)
    assert found.bytes["folded"] == Path(pair[1]).stat().st_size
    jsonschema.validate(json.loads(json.dumps(found.to_dict())), SCHEMA)


def test_what_is_slower_is_called_slower():
    rng = np.random.default_rng(0)
    base = list(rng.uniform(1.0, 1.1, 60))
    assert _level("all", base, [2 * value for value in base]).verdict == "slower"
    assert _level("all", base, [value / 2 for value in base]).verdict == "faster"
    shuffled = list(rng.permutation(base))
    assert _level("all", base, shuffled).verdict == "same"
    assert Level("all", Timing([1.0]), Timing([1.0]), 1.0, 0.9, 1.1).verdict == "same"


def test_the_table_and_the_json(pair):
    result = call(*pair, "--runs", "5", "--levels", "all", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "11 → 8 nodes" in result.stdout
    assert "all " in result.stdout
    jsonschema.validate(json.loads(Path("out.json").read_text()), SCHEMA)


def test_the_original_is_found(pair):
    assert call(pair[1], "--runs", "5", "--quiet").exit_code == 0


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture(pair):
    assert call(*pair, "--runs", "5", "--quiet", "--plot", "times.svg").exit_code == 0
    assert Path("times.svg").read_text().count("milliseconds") >= 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--levels", "fast"), 2),
        (("--device", "tpu"), 2),
        (("--runs", "1"), 2),
        (("--shape", "image:1,1,8,8", "--inputs", "x.npy"), 2),
        (("--inputs", "nope.npy"), 4),
        (("--plot", "digits.onnx"), 2),
        (("--plot", "nowhere/x.svg"), 5),
        (("--time-limit", "0.001"), 3),
    ],
)
def test_calls_that_can_t_be(pair, words, code):
    if "--plot" in words and importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    result = call(*pair, *words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_data_that_does_not_fit_is_refused(pair, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3), "f4"))
    with pytest.raises(InputError, match="does not run"):
        bench(*pair, BenchOptions(inputs=InputOptions(data=tmp_path / "x.npy")))


def test_a_fold_that_can_t_be_run_beside_it_is_undecided(pair, samples):
    with pytest.raises(UndecidedError, match="side by side"):
        bench(pair[0], samples / "conv.onnx", BenchOptions(runs=5, limits=Limits(60)))
