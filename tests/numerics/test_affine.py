"""The algebra of affine transforms and of folding them into weights, as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnfold.numerics.affine import IDENTITY, Affine
from bnfold.numerics.linear import Weight, conv_transpose_view, conv_view, fold_linear, gemm_view
from bnfold.numerics.rounding import ulp

gains = hnp.arrays(np.float64, 4, elements=st.floats(0.01, 100) | st.floats(-100, -0.01))


shifts = hnp.arrays(np.float64, 4, elements=st.floats(-100, 100))


transforms = st.builds(lambda gain, shift: Affine.along(1, gain, shift), gains, shifts)


@given(transforms, transforms)
def test_composition_is_application_one_after_the_other(outer, inner):
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    np.testing.assert_allclose(outer.after(inner)(x), outer(inner(x)), rtol=1e-9, atol=1e-9)


@given(transforms)
def test_the_inverse_undoes_a_transform(transform):
    x = np.random.default_rng(0).normal(size=(2, 4))
    np.testing.assert_allclose(transform.inverse()(transform(x)), x, rtol=1e-9, atol=1e-6)
    assert transform.after(transform.inverse()).gain_only().agrees(IDENTITY)


def test_transforms_take_their_smallest_shape():
    assert Affine.of(np.full((1, 4, 1, 1), 2.0), 0.0).gain.shape == ()
    assert Affine.along(1, [1.0, 2.0], [0.0, 0.0]).gain.shape == (1, 2)
    assert Affine.along(1, np.ones((3, 5)), np.arange(3.0)[:, None] * np.ones((3, 5))).gain.shape == (1, 3)
    assert IDENTITY.is_identity
    for few in ([2.0, 1.0, 2.0], [1.0, 2.0, 1.0]):  # equal at both ends
        assert Affine.along(1, few, [0.0] * 3).gain.shape == (1, 3)
        assert Affine.along(1, [1.0] * 3, few).gain.shape == (1, 3)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_transform_is_finite_in_scale_and_offset(bad):
    assert Affine.along(1, [1.0, 2.0], [0.0, 1.0]).finite
    assert not Affine.along(1, [1.0, bad], [0.0, 1.0]).finite
    assert not Affine.along(1, [1.0, 2.0], [0.0, bad]).finite


@pytest.mark.parametrize("size", [1.0, 1e-20, 1e20])
def test_offsets_agree_up_to_roundings_of_the_largest(size):
    transform = Affine.along(1, [1.0, 2.0], [size, size / 8])
    assert transform.agrees(Affine.along(1, [1.0, 2.0], [size * (1 + 1e-15), size / 8]))
    assert not transform.agrees(Affine.along(1, [1.0, 2.0], [size, size / 8 * (1 + 1e-12)]))
    assert not transform.agrees(Affine.along(1, [1.0, 2.0], [size * (1 + 1e-12), size / 8]))


def test_vectors_are_refused_off_their_axis():
    transform = Affine.along(1, [1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    assert transform.vectors(1, 3) is not None
    assert transform.vectors(1, 4) is None
    assert transform.vectors(1, 2) is None
    assert transform.vectors(2, 3) is None
    assert Affine.of(2.0, 1.0).vectors(3, 7)[0].shape == (7,)
    with pytest.raises(ZeroDivisionError):
        Affine.along(1, [1.0, 0.0], [0.0, 0.0]).inverse()


def apply(view, x, bias):
    """Return ``W x + c`` for a view (group, out, in, taps) and x of (batch, group * in, taps)."""
    group, out, inner, taps = view.shape
    y = np.einsum("goik,ngik->ngo", view, x.reshape(len(x), group, inner, taps))
    return y.reshape(len(x), group * out) + (0 if bias is None else bias)


@given(st.sampled_from([1, 2]), st.booleans(), st.booleans(), st.integers(0, 2**16))
def test_fold_then_apply_equals_apply_then_normalise(group, with_bias, with_input_transform, seed):
    rng = np.random.default_rng(seed)
    view = rng.normal(size=(group, 4 // group, 6 // group, 3))
    bias = rng.normal(size=4) if with_bias else None
    before = (rng.uniform(0.5, 2, 6) * rng.choice([-1, 1], 6), rng.normal(size=6)) if with_input_transform else None
    after = rng.normal(size=4), rng.normal(size=4)
    new, offset = fold_linear(Weight.of(view), bias, before, after)
    new = new.array()
    x = rng.normal(size=(5, 6, 3))
    seen = x if before is None else before[0][:, None] * x + before[1][:, None]
    expected = after[0] * apply(view, x, bias) + after[1]
    size = np.abs(after[0]) * apply(np.abs(view), np.abs(x) + 4, np.abs(offset)) + np.abs(after[1])
    assert (np.abs(apply(new, seen, offset) - expected) <= 64 * ulp(size, np.float64)).all()


def test_views_put_groups_outputs_and_inputs_in_order():
    weight = np.arange(4 * 3 * 5).reshape(4, 3, 5)
    assert conv_view(weight, 2).shape == (2, 2, 3, 5)
    transposed = conv_transpose_view(weight, 2)
    assert transposed.shape == (2, 3, 2, 5)
    np.testing.assert_array_equal(transposed[1, 2, 0], weight[2, 2])
    np.testing.assert_array_equal(gemm_view(weight[:, :, 0], False)[0, :, :, 0], weight[:, :, 0].T)


def test_a_scale_of_zero_is_not_positive():
    assert Affine.of([1.0, 2.0], 0.0).positive
    assert not Affine.of([1.0, 0.0], 0.0).positive
    assert not Affine.of([1.0, -1.0], 0.0).positive


def test_transforms_of_different_ranks_compose():
    rng = np.random.default_rng(0)
    first = Affine.of(rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)))
    second = Affine.of(rng.normal(size=2), rng.normal(size=2))
    x = rng.normal(size=(2, 3, 4))
    np.testing.assert_allclose(second.after(first)(x), second(first(x)))
    np.testing.assert_allclose(first.after(second)(x), first(second(x)))


@pytest.mark.parametrize(
    ("gains", "invertible"),
    [([1e-25, 1e-25], True), ([1e-25, 1.0], False), ([1e-300], True), ([0.0, 1.0], False), ([1e19, 1.0], True)],
)
def test_a_small_scale_is_not_invertible_beside_larger_ones(gains, invertible):
    assert Affine.along(1, gains, 0.0 if len(gains) == 1 else [0.0, 1.0]).invertible is invertible


def test_transforms_of_different_channel_numbers_do_not_agree():
    three, four, one = (Affine.along(1, np.full(size, 2.0), np.arange(float(size))) for size in (3, 4, 1))
    assert not three.agrees(four)
    assert not four.agrees(three)
    assert not one.agrees(four)
    assert four.agrees(Affine.along(1, np.full(4, 2.0), np.arange(4.0)))
