"""The BatchNorm reference against onnxruntime and torch, and against its own algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.numerics.batchnorm import (
    BatchNorm,
    batch_statistics,
    inference,
    per_activation,
    per_channel,
    per_feature,
    training_step,
    update_running,
)
from bnfold.numerics.rounding import ulp
from tests.builders import make, node, tensor
from tests.folding import run


def layer(channels, seed=0, epsilon=1e-5):
    rng = np.random.default_rng(seed)
    parts = (
        rng.normal(1, 0.3, channels),
        rng.normal(size=channels),
        rng.normal(size=channels),
        rng.uniform(0.3, 3, channels),
    )
    return BatchNorm(*(part.astype(np.float32) for part in parts), epsilon)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 7), (2, 5, 4, 6), (2, 5, 3, 4, 2)])
def test_inference_agrees_with_onnxruntime(opset, shape):
    bn = layer(5, epsilon=1e-3)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    held = {name: getattr(bn, name).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    nodes = [node("BatchNormalization", ["x", *held], ["y"], epsilon=bn.epsilon)]
    model = make(nodes, [tensor("x", shape)], [tensor("y", shape)], held, opset=opset)
    np.testing.assert_allclose(inference(x, bn), run(model, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_training_agrees_with_onnxruntime():
    bn = layer(5)
    x = np.random.default_rng(1).normal(size=(6, 5, 3, 3)).astype(np.float32)
    held = {name: getattr(bn, name).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    outputs = [tensor("y", x.shape), tensor("m", [5]), tensor("v", [5])]
    nodes = [node("BatchNormalization", ["x", *held], ["y", "m", "v"], training_mode=1, momentum=0.8)]
    y, mean, var = run(make(nodes, [tensor("x", x.shape)], outputs, held, opset=14), {"x": x})
    ours, updated = training_step(x, bn, momentum=0.8, convention="onnx")
    np.testing.assert_allclose(ours, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(updated.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated.var, var, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"), [("1d", (8, 5)), ("1d", (4, 5, 6)), ("2d", (3, 5, 4, 4)), ("3d", (2, 5, 3, 4, 2))]
)
def test_steps_agree_with_torch(kind, shape):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, f"BatchNorm{kind}")(5, momentum=0.2, dtype=torch.float64)
    ours = BatchNorm.fresh(5)
    rng = np.random.default_rng(2)
    for _ in range(4):
        x = rng.normal(2, 3, shape)
        y, ours = training_step(x, ours, momentum=0.2, convention="torch")
        np.testing.assert_allclose(y, theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ours.mean, theirs.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(ours.var, theirs.running_var.numpy(), rtol=1e-12)
    theirs.eval()
    x = rng.normal(size=shape)
    np.testing.assert_allclose(inference(x, ours), theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-10, atol=1e-12)


def test_the_conventions_of_momentum_are_complements():
    assert update_running(1.0, 3.0, 0.9, "onnx") == pytest.approx(update_running(1.0, 3.0, 0.1, "torch"), rel=1e-15)


def test_channels_last_is_channels_first_transposed():
    bn, x = layer(5), np.random.default_rng(3).normal(size=(2, 4, 4, 5))
    first = inference(np.moveaxis(x, -1, 1), bn)
    np.testing.assert_array_equal(inference(x, bn, channel_axis=-1), np.moveaxis(first, 1, -1))


def test_axes_of_the_three_kinds_of_statistics():
    x = np.random.default_rng(4).normal(size=(6, 5, 3, 4))
    assert per_channel(4) == (0, 2, 3)
    assert per_channel(4, -1) == (0, 1, 2)
    assert per_feature(2) == (0,)
    assert per_feature(3) == (0, 1)
    assert per_activation() == (0,)
    statistics = batch_statistics(x, per_channel(4))
    assert statistics.mean.shape == (5,)
    assert statistics.count == 6 * 3 * 4
    np.testing.assert_allclose(statistics.unbiased_var, x.var(axis=(0, 2, 3), ddof=1))
    assert batch_statistics(x, per_activation()).mean.shape == (5, 3, 4)


def test_a_step_of_training_per_activation():
    """Each position has its own mean, over the batch alone, as in torch for positions flattened into features."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3, 2, 2))
    bn = BatchNorm(*(rng.uniform(0.5, 2, (3, 2, 2)) for _ in range(4)))
    y, moved = training_step(x, bn, momentum=0.2, convention="torch")
    parts = [torch.tensor(part.reshape(-1)) for part in (bn.mean, bn.var, bn.scale, bn.bias)]
    flat = torch.nn.functional.batch_norm(torch.tensor(x.reshape(6, -1)), *parts, training=True, momentum=0.2)
    np.testing.assert_allclose(y.reshape(6, -1), flat.numpy(), rtol=1e-9)
    np.testing.assert_allclose(moved.mean.reshape(-1), parts[0].numpy(), rtol=1e-9)
    np.testing.assert_allclose(moved.var.reshape(-1), parts[1].numpy(), rtol=1e-9)


def test_per_activation_statistics_span_the_positions():
    rng = np.random.default_rng(5)
    parts = [rng.uniform(0.5, 2, (3, 2, 2)) for _ in range(4)]
    bn, x = BatchNorm(*parts), rng.normal(size=(4, 3, 2, 2))
    expected = parts[0] * (x - parts[2]) / np.sqrt(parts[3] + 1e-5) + parts[1]
    np.testing.assert_allclose(inference(x, bn), expected)
    np.testing.assert_allclose(bn.affine()(x), expected)


@pytest.mark.parametrize(("channels", "count"), [(50, 200), (30, 120)])
def test_parameter_counts_are_those_that_keras_prints(channels, count):
    assert BatchNorm.fresh(channels).parameter_count == count


def test_scale_root_var_and_bias_mean_recover_the_identity():
    x = np.random.default_rng(6).normal(3, 2, (50, 4, 5, 5))
    batch = batch_statistics(x, per_channel(4))
    bn = BatchNorm(np.sqrt(batch.var + 1e-5), batch.mean, batch.mean, batch.var)
    np.testing.assert_allclose(inference(x, bn), x, rtol=1e-12)
    np.testing.assert_allclose(training_step(x, bn)[0], x, rtol=1e-12)


def test_a_single_sample_in_training_normalises_to_the_bias():
    bn = layer(4)
    np.testing.assert_allclose(training_step(np.ones((1, 4)), bn)[0], bn.bias[None], atol=1e-12)


def test_the_default_momentum_is_that_of_onnx():
    x = np.random.default_rng(0).normal(3.0, 2.0, (8, 2, 5))
    _, moved = training_step(x, BatchNorm.fresh(2))
    np.testing.assert_allclose(moved.mean, 0.1 * x.mean(axis=(0, 2)))
    np.testing.assert_allclose(moved.var, 0.9 + 0.1 * x.var(axis=(0, 2)))


def test_a_degenerate_variance_has_no_transform():
    with pytest.raises(ValueError, match=r"smallest is 0\.0"):
        BatchNorm([1.0], [0.0], [0.0], [0.0], 0.0).affine()
    with pytest.raises(ValueError, match="positive"):
        BatchNorm([1.0], [0.0], [0.0], [-1.0]).affine()
    with pytest.raises(ValueError, match="one shape"):
        BatchNorm([1.0, 2.0], [0.0], [0.0], [1.0])


def _no_denormals(low, high):
    return st.floats(low, high).filter(lambda value: value == 0 or abs(value) > 1e-100)


values = _no_denormals(-1e3, 1e3)


@given(
    st.lists(st.tuples(_no_denormals(-4, 4), values, values, st.floats(1e-3, 1e3)), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_the_affine_form_equals_the_definition_in_ulps(channels, seed):
    bn = BatchNorm(*np.array(channels).T)
    x = np.random.default_rng(seed).normal(0, 10, (3, len(channels), 4))
    exact, ours = inference(x, bn), bn.affine()(x)
    gain = np.abs(bn.affine().gain if bn.affine().gain.ndim == 0 else bn.affine().gain.reshape(1, -1, 1))
    size = gain * np.abs(x) + gain * np.abs(bn.mean.reshape(1, -1, 1)) + np.abs(bn.bias.reshape(1, -1, 1))
    assert (np.abs(exact - ours) <= 8 * ulp(size, np.float64)).all()
