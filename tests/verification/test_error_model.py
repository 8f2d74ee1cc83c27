"""The statistic: about 1 where rounding alone differs, in proportion to a fault, per channel where there are enough."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.options import K_NOISE
from bnfold.verification.measurement.error_model import CHANNEL, ErrorAccumulator


def tally(
    fault: float = 0.0, *, positions: int = CHANNEL, channel: int = 0, noise: float = 1.0, seed: int = 0
) -> ErrorAccumulator:
    """Results of 8 channels in float32, with rounding errors; one channel of the folded one is off by a factor."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((1, 8, positions))

    def off() -> np.ndarray:
        return true + noise * 2.0**-23 * rng.standard_normal(true.shape)

    folded = off()
    folded[:, channel] *= 1 + fault
    found = ErrorAccumulator(np.dtype(np.float32))
    found.add(folded, off(), true, off())
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("positions", [4, 32, CHANNEL, 4096])
def test_right_folds_score_about_one(seed, positions):
    assert 0.2 < tally(positions=positions, seed=seed).error_ratio < 1.8


@pytest.mark.parametrize("positions", [32, CHANNEL])
def test_faults_score_in_proportion(positions):
    small, large = tally(1e-5, positions=positions).error_ratio, tally(1e-4, positions=positions).error_ratio
    assert large > 9 * small > 9 * K_NOISE


def test_the_channel_is_named():
    assert tally(1e-5, channel=5).channels(K_NOISE) == [5]
    assert tally(1e-4, channel=5, positions=32).channels(K_NOISE) == [5]


def test_the_sensitivity_is_what_would_have_been_seen():
    seen = tally().detection_limit(K_NOISE)
    assert tally(1.5 * seen).error_ratio > K_NOISE > tally(0.3 * seen).error_ratio


def test_noise_that_could_hide_a_fault_is_told():
    assert tally(noise=2.0**16).too_noisy
    assert not tally(noise=16.0).too_noisy


def test_an_error_where_none_can_be_is_infinite():
    found = ErrorAccumulator(np.dtype(np.float32))
    zero = np.zeros((1, 8, 4))
    found.add(zero + 1e-9, zero, zero, zero)
    assert found.error_ratio == np.inf
    assert found.detection_limit(3.0) == 0.0
