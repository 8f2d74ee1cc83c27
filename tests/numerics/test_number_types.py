"""Rounding to floating-point types, and the distance of their numbers (ulp)."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.numerics.rounding import rounded, smallest_normal, ulp


@pytest.mark.parametrize(
    ("value", "nearest"), [(1 + 2**-8 + 2**-40, 1 + 2**-7), (1 + 2**-8, 1.0), (-(1 + 2**-8 + 2**-40), -(1 + 2**-7))]
)
def test_bfloat16_is_rounded_once(value, nearest):
    assert float(rounded(value, ml_dtypes.bfloat16)) == nearest
    assert float(rounded([value], ml_dtypes.bfloat16)[0]) == nearest


@given(st.floats(-1e30, 1e30))
def test_rounding_is_within_half_an_ulp(value):
    for dtype in (ml_dtypes.bfloat16, np.float32):
        error = abs(float(rounded(value, dtype)) - value)
        assert error <= 0.5 * float(ulp(np.float64(value), dtype))


def test_limits_of_number_types():
    assert smallest_normal(np.float16) == 2.0**-14
    assert ulp(np.float64(1.0), np.float32) == 2.0**-23
    assert np.isinf(rounded(1e6, np.float16))


@given(st.floats(-1e30, 1e30, allow_subnormal=False), st.integers(-200, 200))
def test_bfloat16_is_the_nearest_of_its_neighbours(value, off):
    """Also for values next to the middle between two of them, where rounding to float32 first errs."""
    held = float(np.float64(ml_dtypes.bfloat16(value)))
    middle = held + float(ulp(np.float64(held), ml_dtypes.bfloat16)) / 2
    for exact in (value, middle * (1 + off * 2.0**-50), middle * (1 + off * 2.0**-31)):
        near = float(rounded(exact, ml_dtypes.bfloat16))
        step = float(ulp(np.float64(near), ml_dtypes.bfloat16))
        others = [float(np.float64(ml_dtypes.bfloat16(near + k * step))) for k in (-1, 0, 1)]
        assert abs(near - exact) <= min(abs(other - exact) for other in others)


@pytest.mark.parametrize("below", [1.0, 1.0078125, -1.0, -3.015625, 2.0**-130])
@pytest.mark.parametrize("quarters", range(-12, 13))
def test_bfloat16_next_to_the_middle_in_quarters_of_a_float32(below, quarters):
    above = below + np.sign(below) * float(ulp(np.float64(below), ml_dtypes.bfloat16))
    middle = (below + above) / 2
    off = quarters / 4 * float(np.spacing(np.float32(abs(middle)))) * np.sign(below)
    even = above if float(np.float32(above).view(np.uint32) >> 16 & 1) == 0 else below
    expected = even if quarters == 0 else above if quarters > 0 else below
    assert float(rounded(middle + off, ml_dtypes.bfloat16)) == expected


def test_ulps_of_bfloat16():
    for value, step in ((1.0, 2**-7), (1.5, 2**-7), (2.0, 2**-6), (0.75, 2**-8), (-4.0, 2**-5), (0.0, 2.0**-133)):
        assert float(ulp(np.float64(value), ml_dtypes.bfloat16)) == step


@pytest.mark.parametrize(
    ("dtype", "largest", "step", "smallest"),
    [
        ("float16", 65000.0, 32.0, 2.0**-24),
        ("float32", 3.4e38, 2.0**104, 2.0**-149),
        ("float64", 1.7e308, 2.0**971, 2.0**-1074),
    ],
)
def test_ulps_at_the_ends_of_a_type(dtype, largest, step, smallest):
    """Subnormal numbers are spaced as the smallest ones; the largest has no next."""
    assert ulp(np.array(largest), dtype) == step
    assert ulp(np.array(3 * smallest), dtype) == smallest
    assert np.isnan(ulp(np.array(np.inf), dtype))


def test_ulps_of_bfloat16_at_its_ends():
    assert ulp(np.array(3.3e38), ml_dtypes.bfloat16) == 2.0**120
    assert ulp(np.array(float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)), ml_dtypes.bfloat16) == 2.0**120
    assert np.isnan(ulp(np.array([3.4e39, -3.4e39]), ml_dtypes.bfloat16)).all()
