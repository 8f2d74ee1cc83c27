"""Running statistics as numbers: pooled moments, averages, distances, what waits, and what looks odd."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.support import ROOT

pytest.importorskip("onnxruntime")

from bnfold.api import inspect
from bnfold.calibration import activation_cache as activation_cache
from bnfold.calibration import moments
from bnfold.numerics.batchnorm import BatchNorm, Statistics, batch_statistics, per_channel, training_step
from bnfold.results import health
from bnfold.results.calibration import Drift
from tests.calibration.models import residual

arrays = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(arrays, st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_pooled_batches_are_one_batch(rng, sizes, offset, width):
    batches = [rng.normal(offset, width, (rows, 3, 2)) for rows in sizes]
    estimator = moments.Population()
    for batch in batches:
        estimator.add(moments.statistics_of(batch, (0, 2)))
    found, whole = estimator.result(), np.concatenate(batches)
    if not whole.size:
        assert found is None
        return
    expected = batch_statistics(whole, (0, 2))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-7, atol=width * (1e-9 * width + 1e-14 * abs(offset)))


def test_a_large_activation_is_pooled_piece_by_piece(monkeypatch):
    x = np.random.default_rng(0).normal(3, 2, (50, 4, 5, 5))
    expected = batch_statistics(x, (0, 2, 3))
    monkeypatch.setattr(moments, "PIECE", 700)
    found = moments.statistics_of(x, (0, 2, 3))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-13)


def test_a_batch_of_nothing_moves_nothing():
    estimator = moments.MovingAverage(np.zeros(3), np.ones(3), 0.3)
    estimator.add(moments.statistics_of(np.zeros((0, 3, 5)), (0, 2)))
    assert estimator.result() is None


@pytest.mark.parametrize("convention", ["onnx", "torch"])
def test_a_moving_average_is_what_training_keeps(convention):
    rng = np.random.default_rng(1)
    bn = BatchNorm.fresh(3)
    estimator = moments.MovingAverage(bn.mean, bn.var, 0.3, convention)
    for rows in (4, 7, 2):
        x = rng.normal(2, 3, (rows, 3, 5))
        _, bn = training_step(x, bn, momentum=0.3, convention=convention)
        estimator.add(batch_statistics(x, per_channel(3)))
    np.testing.assert_allclose(estimator.result().mean, bn.mean, rtol=1e-14)
    np.testing.assert_allclose(estimator.result().var, bn.var, rtol=1e-14)


def test_distance_counts_stored_deviations():
    stored = (np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 4.0, 1.0, np.nan]))
    found = Statistics(np.array([0.0, 4.0, 0.0, 0.0]), np.array([1.0, 4.0, 9.0, 1.0]), 10)
    np.testing.assert_allclose(moments.distance(stored, found, 0.0), [0, 2, 2, np.inf])


def test_what_does_not_fit_into_memory_waits_in_files(tmp_path):
    import ml_dtypes

    entries = [{"a": np.full((2, 3), k, ml_dtypes.bfloat16), "b": np.array([k])} for k in range(4)]
    waiting = activation_cache.ActivationCache(tmp_path, limit=30)
    for entry in entries:
        waiting.add(entry)
    assert len(list(tmp_path.iterdir())) == 6
    for entry, found in zip(entries, waiting, strict=True):
        assert found["a"].dtype == entry["a"].dtype
        assert all((found[name] == entry[name]).all() for name in entry)
    assert not list(tmp_path.iterdir())


def bn_with(**changed):
    parts = {"scale": np.ones(4), "bias": np.zeros(4), "mean": np.full(4, 0.1), "var": np.full(4, 0.5)}
    return BatchNorm(**{**parts, **{name: np.array(values, float) for name, values in changed.items()}})


@pytest.mark.parametrize(
    ("bn", "codes"),
    [
        (bn_with(), {}),
        (BatchNorm.fresh(4), {"never-updated": ()}),
        (bn_with(mean=[0, 0, 0, 0]), {}),
        (bn_with(mean=[0, 0, 0, 0], var=[1, 1, 1, 1.0001]), {}),
        (bn_with(var=[0.5, np.inf, 0.5, 0.5]), {"non-finite": (1,)}),
        (bn_with(scale=[1, np.nan, 1, 1]), {"non-finite": (1,)}),
        (bn_with(var=[0.5, 0.5, -1e-9, 0.5]), {"negative-variance": (2,)}),
        (bn_with(var=[0, 0.5, 0.5, 0.5]), {"zero-variance": (0,)}),
        (bn_with(var=[1e-9, 1.1e-8, 0.5, 0.5]), {"tiny-variance": (0,)}),
        (bn_with(scale=[1, 0, 1e-7, 1e-5]), {"dead-channels": (1, 2)}),
        (bn_with(scale=[0, 0, 0, 0]), {"dead-channels": (0, 1, 2, 3)}),
        (bn_with(scale=[1e5, 1, 1, 1]), {"huge-gain": (0,)}),
        (
            bn_with(mean=np.ones((4, 2)), var=[[1, 0]] + [[1, 1]] * 3, scale=np.ones((4, 2)), bias=np.ones((4, 2))),
            {"zero-variance": (0,)},
        ),
    ],
)  # fmt: skip
def test_findings(bn, codes):
    assert {finding.code: finding.channels for finding in health.of_parameters(bn)} == codes


def test_a_model_is_told_its_findings():
    model = residual()
    for t in model.graph.initializer:
        if t.name == "a_var":
            t.CopyFrom(numpy_helper.from_array(np.array([-2, 0, 1, 1], "f4"), "a_var"))
    row = inspect(model).rows[0]
    assert row.status == "kept"
    assert row.warnings == ["negative-variance", "zero-variance"]


def test_every_finding_is_explained():

    page = (ROOT / "docs/statistics.md").read_text()
    assert all(f"`{code}`" in page for code in health.FINDINGS)


def test_drift_is_the_layer_s_as_a_whole():
    drift = Drift(np.array([0.0, 0.0, 0.0, 0.9]), 10)
    assert drift.rms == pytest.approx(0.45)
    assert drift.findings == []
    assert Drift(np.array([0.0, 0.8, 0.9]), 10).findings == [health.Finding("drift", (1, 2))]
