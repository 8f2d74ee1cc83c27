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
from bnfold.benchmark.run import Level, Timing, _interval, _level, bench
from bnfold.cli.main import main
from bnfold.errors import InconclusiveError, InputError
from bnfold.options import BenchOptions, InputOptions, Limits
from tests.support import SCHEMA

pytest.importorskip("onnxruntime")


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


@pytest.mark.parametrize(
    ("low", "high", "confidence", "verdict"),
    [
        (0.9, 1.1, 0.95, "same"),
        (0.22, 7.6, 0.95, "inconclusive"),
        (0.89, 1.0, 0.95, "inconclusive"),
        (1.0, 1.11, 0.95, "inconclusive"),
        (0.2, 0.97, 0.95, "faster"),
        (1.03, 9.0, 0.95, "slower"),
        (1.03, 9.0, 0.9375, "inconclusive"),
        (0.99, 1.01, 0.9375, "inconclusive"),
    ],
)
def test_nothing_is_said_that_the_interval_does_not_tell(low, high, confidence, verdict):
    level = Level("all", Timing([1.0]), Timing([1.0]), 0.98, low, high, confidence)
    assert level.verdict == verdict
    assert ("hint" in level.to_dict()) is (verdict == "inconclusive")


@pytest.mark.parametrize(("runs", "places", "confidence"), [
    (1, (0, 0), 0.0), (2, (0, 1), 0.5), (3, (0, 2), 0.75), (5, (0, 4), 0.9375), (6, (0, 5), 0.96875),
    (9, (1, 7), 0.9609375), (50, (17, 32), 0.9672),
])  # fmt: skip
def test_intervals_are_those_of_the_binomial_distribution(runs, places, confidence):
    """As any table of confidence intervals of the median has them."""
    low, high, found = _interval([float(place) for place in range(runs)])
    assert (low, high) == places
    assert found == pytest.approx(confidence, abs=1e-4)


def test_few_runs_tell_nothing_however_clear_they_look():
    for runs in (1, 2, 3, 5):
        assert _level("all", [1.0] * runs, [2.0] * runs).verdict == "inconclusive"
    assert _level("all", [1.0] * 6, [2.0] * 6).verdict == "slower"


def test_intervals_hold_the_median_as_often_as_they_say():
    rng = np.random.default_rng(1)
    for runs in (6, 11, 30):
        held = [
            low <= 1 <= high for low, high, _ in (_interval(sorted(rng.lognormal(0, 2, runs))) for _ in range(2000))
        ]
        assert np.mean(held) > 0.94


def test_what_is_inconclusive_is_said_with_a_hint(pair):
    result = call(*pair, "--runs", "5", "--levels", "all", "--json", "out.json")
    assert "inconclusive" in result.stdout
    assert "more --runs" in result.stdout
    (level,) = json.loads(Path("out.json").read_text())["levels"]
    assert (level["verdict"], level["ratio"]["confidence"]) == ("inconclusive", 0.9375)
    assert "more --runs" in level["hint"]


def test_the_table_and_the_json(pair):
    result = call(*pair, "--runs", "5", "--levels", "all", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert "11 → 8 nodes" in result.stdout
    assert "all\t" in result.stdout
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
    with pytest.raises(InputError, match="takes float32"):
        bench(*pair, BenchOptions(inputs=InputOptions(data=tmp_path / "x.npy")))


def test_a_fold_that_can_t_be_run_beside_it_is_undecided(pair, samples):
    with pytest.raises(InconclusiveError, match="side by side"):
        bench(pair[0], samples / "conv.onnx", BenchOptions(runs=5, limits=Limits(60)))


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (0.92, 0.9, 0.94, "8% faster"),
        (1.25, 1.2, 1.3, "25% slower"),
        (1.0, 0.98, 1.02, "no significant difference (under 10%)"),
        (1.0, 0.5, 1.5, "inconclusive"),
    ],
)
def test_the_conclusion_in_words(ratio, low, high, said):
    level = Level("all", Timing([1.0]), Timing([1.0]), ratio, low, high)
    assert level.conclusion == level.to_dict()["conclusion"] == said
