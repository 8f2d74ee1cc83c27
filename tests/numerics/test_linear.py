"""The weights of linear operators, computed block by block: the dense formula, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.numerics import linear
from bnfold.numerics.linear import Weight, fold_linear

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))


def dense(stored, bias, before, after, inputs_first):
    """Return what the formula in the docstring of the module makes of whole arrays."""
    view = np.swapaxes(stored, 1, 2) if inputs_first else stored
    group, out, inner, _ = view.shape
    gain, shift = (v.reshape(group, out) for v in after)
    gain_in, shift_in = (v.reshape(group, inner) for v in before)
    new = view * gain[:, :, None, None] / gain_in[:, None, :, None]
    offset = bias.reshape(group, out) - np.einsum("goik,gi->go", view, shift_in / gain_in)
    return np.swapaxes(new, 1, 2) if inputs_first else new, (gain * offset + shift).reshape(-1)


@given(shapes, st.booleans(), st.booleans(), st.integers(1, 200), st.integers(0, 2**16))
def test_blocks_of_any_size_make_the_dense_fold(shape, inputs_first, transforms_inputs, block, seed):
    rng = np.random.default_rng(seed)
    stored = rng.standard_normal(shape).astype("f4")
    group, rows, columns, taps = shape
    out, inner = (columns, rows) if inputs_first else (rows, columns)
    signs = rng.choice([-1.0, 1.0], group * inner)
    before = (rng.uniform(0.5, 2, group * inner) * signs, rng.normal(size=group * inner))
    before = before if transforms_inputs else (np.ones(group * inner), np.zeros(group * inner))
    after = rng.normal(size=group * out), rng.normal(size=group * out)
    bias, observed, sizes = rng.normal(size=group * out), [], []
    flat = stored.reshape(-1)

    def part(start, stop):
        sizes.append(stop - start)
        assert 0 <= start < stop <= flat.size
        return flat[start:stop]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "BLOCK", block)
        new, offset = fold_linear(Weight(part, shape, inputs_first), bias, before, after)
        checked = linear.Scaled(new.weight, new.gain, new.divisor, shape, np.float64, observed.append)
        actual = checked.array()
    expected, expected_offset = dense(stored.astype("f8"), bias, before, after, inputs_first)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(offset, expected_offset, rtol=1e-9, atol=1e-9)
    assert max(sizes) <= max(block, columns * taps)
    (largest,) = observed
    per_output = np.swapaxes(expected, 1, 2) if inputs_first else expected
    np.testing.assert_allclose(largest, np.abs(per_output).max(axis=(2, 3)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_each_weight_is_rounded_once(dtype):
    rng = np.random.default_rng(0)
    stored = rng.standard_normal((1, 3, 4, 2)).astype(dtype)
    new, _ = fold_linear(Weight.of(stored), None, None, (rng.normal(size=3), np.zeros(3)))
    made = linear.Scaled(new.weight, new.gain, new.divisor, new.shape, np.dtype(dtype)).array()
    np.testing.assert_array_equal(made, new.array().astype(dtype))
    assert made.dtype == dtype


def test_a_range_check_that_raises_stops_the_computation():
    class NoError(Exception):
        pass

    def judge(_):
        raise NoError

    weight = Weight.of(np.ones((1, 2, 2, 1)))
    with pytest.raises(NoError):
        linear.Scaled(weight, np.ones((1, 2)), None, (2, 2), np.float64, judge).array()


@pytest.mark.parametrize("inputs_first", [False, True])
@pytest.mark.parametrize(
    ("shape", "block"), [((3, 2, 2, 1), 8), ((5, 3, 2, 2), 25), ((2, 5, 3, 1), 7), ((1, 7, 2, 1), 4)]
)
def test_the_last_block_may_be_smaller(monkeypatch, shape, block, inputs_first):
    """Groups, or rows of a group, that are left over."""
    monkeypatch.setattr(linear, "BLOCK", block)
    stored = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    seen = np.full(shape, np.nan)
    sizes = []
    for (groups, rows), block in Weight.of(stored, inputs_first=inputs_first).blocks():
        assert np.isnan(seen[groups, rows]).all()
        seen[groups, rows] = block
        sizes.append(block.size)
    np.testing.assert_array_equal(seen, stored)
    assert len(set(sizes)) == 2
