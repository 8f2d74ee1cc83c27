"""Faults of the formula: BatchNorms folded with one mistake in the gain, the shift or the bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.wrong_folds.arithmetic import Array, Layer, behind
from tests.wrong_folds.mistakes import biased, epsilon, is_behind, mistake, one_gain, other_epsilon, usual_epsilon

# --- the formula

mistake("epsilon_too_large", "epsilon 1e-3 for 1e-5 in one BatchNorm", usual_epsilon, stats=epsilon(1e-3))
mistake("epsilon_default", "one BatchNorm's own epsilon ignored, 1e-5 taken", other_epsilon, stats=epsilon(1e-5))
mistake("epsilon_dropped", "epsilon 0 in every BatchNorm", everywhere=True, stats=epsilon(0))
mistake("epsilon_dropped_once", "epsilon 0 in one BatchNorm", usual_epsilon, stats=epsilon(0))
mistake(
    "epsilon_outside_root",
    "epsilon added to the standard deviation rather than to the variance",
    gain=lambda s: s.scale / (np.sqrt(s.var) + s.epsilon),
)
mistake("gain_one_percent", "the scale of one channel 1 % too large", stats=one_gain(2, 1.01))
mistake("gain_hundredth_percent", "the scale of one channel 0.01 % too large", stats=one_gain(2, 1.0001))
mistake("gain_faintest", "the scale of the faintest channel 1 % too large", stats=one_gain(-1, 1.01))
mistake("gain_sign_once", "the sign of one channel's scale wrong", stats=one_gain(1, -1))
mistake("gain_sign_lost", "the scale's absolute value taken", stats=lambda s: replace(s, scale=np.abs(s.scale)))
mistake("gamma_ignored", "scale 1", stats=lambda s: replace(s, scale=np.ones_like(s.scale)))
mistake("beta_ignored", "bias 0", stats=lambda s: replace(s, bias=np.zeros_like(s.bias)))
mistake("mean_ignored", "mean 0", stats=lambda s: replace(s, mean=np.zeros_like(s.mean)))
mistake("mean_added", "the mean added rather than subtracted", stats=lambda s: replace(s, mean=-s.mean))
mistake("mean_not_scaled", "the mean subtracted without its factor", shift=lambda s, _gain: s.bias - s.mean)
mistake("mean_and_bias_swapped", "mean and bias swapped", stats=lambda s: replace(s, mean=s.bias, bias=s.mean))
mistake("scale_and_bias_swapped", "scale and bias swapped", stats=lambda s: replace(s, scale=s.bias, bias=s.scale))
mistake("mean_and_var_swapped", "mean and |var| swapped", stats=lambda s: replace(s, mean=s.var, var=np.abs(s.mean)))
mistake("variance_not_rooted", "divided by the variance", gain=lambda s: s.scale / (s.var + s.epsilon))
mistake("root_multiplied", "multiplied by the standard deviation", gain=lambda s: s.scale * np.sqrt(s.var + s.epsilon))
mistake("variance_ignored", "variance 1", stats=lambda s: replace(s, var=np.ones_like(s.var)))
mistake(
    "variance_unbiased",
    "the variance corrected once more by n / (n − 1), n = 512",
    stats=lambda s: replace(s, var=s.var * 512 / 511),
)
mistake(
    "statistics_updated",
    "the running statistics moved by one more step with momentum 0.99, by a batch of mean 0 and variance 1",
    stats=lambda s: replace(s, mean=0.99 * s.mean, var=0.99 * s.var + 0.01),
)
mistake(
    "momentum_swapped",
    "the running statistics moved by a step with momentum 0.1 for 0.9",
    stats=lambda s: replace(s, mean=0.1 * s.mean, var=0.1 * s.var + 0.9),
)


# --- the bias


def with_bias(make: Callable[[Layer, Array, Array], Array]) -> dict[str, Any]:
    """The step that folds a map in behind, with another bias."""
    return {"behind": lambda layer, gain, shift: replace(behind(layer, gain, shift), bias=make(layer, gain, shift))}


mistake("bias_not_scaled", "the old bias not multiplied", biased, **with_bias(lambda old, _g, s: old.offset + s))
mistake("bias_forgotten", "the old bias dropped", biased, **with_bias(lambda _old, _g, s: s))
mistake("bias_stale", "the old bias left as it was", biased, **with_bias(lambda old, _g, _s: old.offset + _g * 0))
mistake(
    "bias_scaled_twice", "the old bias multiplied twice", biased, **with_bias(lambda old, g, s: g * g * old.offset + s)
)
mistake("shift_lost", "the weights folded, the bias not", is_behind, **with_bias(lambda old, g, _s: g * old.offset))
mistake("shift_doubled", "the shift added twice", is_behind, **with_bias(lambda old, g, s: g * old.offset + 2 * s))
mistake("shift_negated", "the shift subtracted", is_behind, **with_bias(lambda old, g, s: g * old.offset - s))
mistake("bias_doubled", "the new bias doubled", is_behind, **with_bias(lambda old, g, s: 2 * (g * old.offset + s)))
mistake("shift_scaled", "the shift multiplied too", is_behind, **with_bias(lambda old, g, s: g * (old.offset + s)))
mistake(
    "neighbour_shift",
    "every channel gets its neighbour's shift",
    is_behind,
    behind=lambda layer, gain, shift: behind(layer, gain, np.roll(shift, 1)),
)
mistake(
    "alpha_on_bias",
    "Gemm's alpha applied to the bias too",
    lambda place, layer, _stats: place.is_behind and layer.alpha != 1,
    **with_bias(lambda old, g, s: g * old.alpha * old.offset + s),
)
mistake(
    "beta_of_gemm_lost",
    "Gemm's beta not applied to the old bias",
    lambda place, layer, _stats: place.is_behind and layer.beta != 1,
    **with_bias(lambda old, g, s: g * old.offset / old.beta + s),
)
