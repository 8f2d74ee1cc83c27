"""Weights that are floats, quantized and dequantized again (QAT): gains go into the floats and both scales."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from bnfold.api import fold
from tests.builders import chain, node, of_opset, parse
from tests.folding import assert_equivalent, fold_proto, reasons


def network(weight, scale, zero, *, gains=(1.0, 2.0, 0.5, 3.0), opset=17, more=(), **attributes):
    """A sigmoid, a Conv whose weight is quantized, and a BatchNorm."""
    held = {"qw": weight, "qs": np.asarray(scale, weight.dtype), "qz": zero}
    inputs = ["qs", "qz"]
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("QuantizeLinear", ["qw", *inputs], ["q"], **attributes),
        node("DequantizeLinear", ["q", *inputs], ["v"], **attributes),
        node("Conv", ["t", "v"], ["d"]),
        *more,
        held=held,
        gains=list(gains),
    )
    of_opset(model, opset)
    return model


def integers(model):
    """Return what the QuantizeLinear of a weight makes on onnxruntime."""
    (quantize,) = (each for each in model.graph.node if each.op_type == "QuantizeLinear")
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    held = {f"h{place}": numpy_helper.to_array(known[name]) for place, name in enumerate(quantize.input)}
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in quantize.attribute}
    alone = parse("() => (int8[] q) { q = Identity (h0) }", held, opset=model.opset_import[0].version)
    del alone.graph.node[:]
    alone.graph.node.append(helper.make_node("QuantizeLinear", list(held), ["q"], **attributes))
    if len(held) > 2:
        alone.graph.output[0].type.tensor_type.elem_type = known[quantize.input[2]].data_type
    return onnxruntime.InferenceSession(alone.SerializeToString()).run(None, {})[0].astype(int)


def random_weight(seed=0, dtype="f4"):
    return np.random.default_rng(seed).standard_normal((4, 4, 1, 1)).astype(dtype)


I8 = np.zeros((), "i1")


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("gains", [(1.0, 2.0, 0.5, 3.0), (2.0, 2.0, 2.0, 2.0), (1.0, -1.0, 0.3, -2.0)])
def test_every_integer_stays_or_is_negated(per_channel, gains):
    scale, zero = (np.full(4, 0.02), np.zeros(4, "i1")) if per_channel else (0.02, I8)
    model = network(random_weight(), scale, zero, gains=gains, **({"axis": 0} if per_channel else {}))
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    signs = np.sign(gains).astype(int).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(integers(folded), integers(model) * signs)
    assert_equivalent(model, folded, 512.0)


def test_the_fold_is_verified(tmp_path):
    (tmp_path / "m.onnx").write_bytes(network(random_weight(), 0.02, I8).SerializeToString())
    result = fold(tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert result.verification.verdict == "equivalent" and result.inspection.foldable == 1


def test_floats_in_the_middle_of_two_integers_make_the_same_ones():
    """A product that is rounded may fall on the other side."""
    rng = np.random.default_rng(3)
    scale = np.float32(0.0137)
    middles = ((rng.integers(-120, 120, (4, 4, 1, 1)) + 0.5) * scale).astype("f4")
    for weight in (middles, np.nextafter(middles, np.float32(9)), np.nextafter(middles, np.float32(-9))):
        model = network(weight, scale, I8, gains=rng.uniform(0.1, 3, 4))
        folded, (plan,) = fold_proto(model)
        assert plan.folds
        np.testing.assert_array_equal(integers(folded), integers(model))


def test_saturated_weights_stay_saturated():
    weight = random_weight()
    weight[0, 0], weight[1, 1] = 50, -50
    model = network(weight, 0.02, I8)
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    np.testing.assert_array_equal(integers(folded), integers(model))


def test_a_lowest_integer_has_no_opposite():
    model = network(np.full((4, 4, 1, 1), -50, "f4"), 0.02, I8, gains=[1.0, -1.0, 1.0, 1.0])
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"]


def test_a_factor_of_zero_makes_zeros():
    model = network(random_weight(), 0.02, np.array(7, "i1"), gains=[1.0, 0.0, -1.0, 2.0])
    folded, (plan,) = fold_proto(model)
    assert plan.folds
    assert (integers(folded)[1] == 7).all()
    assert_equivalent(model, folded, 512.0)


@pytest.mark.parametrize("opset", [10, 12, 13])
def test_one_scale_becomes_several_where_the_operators_can(opset):
    model = network(random_weight(), 0.02, I8, opset=opset)
    _, (plan,) = fold_proto(model)
    assert bool(plan.folds) is (opset >= 13)


def test_integers_that_have_another_consumer_are_kept():
    more = [node("Identity", ["d"], ["d0"])]
    model = network(random_weight(), 0.02, I8, more=more)
    model.graph.node.append(node("DequantizeLinear", ["q", "qs", "qz"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", 1, None))
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["consumers"]


def test_a_scale_that_would_lose_its_bits_is_kept():
    model = network(random_weight(), 0.02, I8, gains=[1e-37, 1.0, 1.0, 1.0])
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["overflow"]


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("gains", [(1.0, 2.0, 0.5, 3.0), (1.0, -2.0, 0.5, 3.0)])
def test_blocks_of_input_channels(dtype, gains):
    """As weights of language models are stored (opset 21): each row of scales takes its channel's factor."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.dtype(dtype) if dtype == "int8" else np.dtype(getattr(ml_dtypes, dtype))
    rng = np.random.default_rng(0)
    low = 1 if dtype == "uint4" else -7
    held = {
        "q": rng.integers(low, low + 14, (4, 4, 1, 1)).astype(kind),
        "s": rng.uniform(0.1, 0.2, (4, 2, 1, 1)).astype("f4"),
    }
    if dtype == "uint4":
        held["z"] = np.full((4, 2, 1, 1), 8).astype(kind)
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s", *(["z"] if "z" in held else [])], ["v"], axis=1, block_size=2),
        node("Conv", ["t", "v"], ["d"]),
        held=held,
        gains=list(gains),
    )
    of_opset(model, 21)
    folded, (plan,) = fold_proto(model)
    assert plan.folds, plan.outcomes
    assert_equivalent(model, folded, 1024.0)


def test_blocks_of_the_channels_themselves_are_kept():
    held = {"q": np.full((4, 4, 1, 1), 3, "i1"), "s": np.full((2, 4, 1, 1), 0.5, "f4")}
    model = chain(
        node("Sigmoid", ["c"], ["t"]),
        node("DequantizeLinear", ["q", "s"], ["v"], axis=0, block_size=2),
        node("Conv", ["t", "v"], ["d"]),
        held=held,
        gains=[1.0, 2.0, 0.5, 3.0],
    )
    of_opset(model, 21)
    _, (plan,) = fold_proto(model)
    assert reasons(plan) == ["unsupported-dtype"]


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("zero", [np.array(0, "i1"), np.array(3, "u1"), np.array(100, "u2")])
def test_constants_are_quantized_as_onnxruntime_does(dtype, zero):
    """Including ties, and quotients next to them."""
    from bnfold.numerics.dequantize import quantized

    rng = np.random.default_rng(1)
    scale = np.asarray(0.0137, dtype)
    ties = ((rng.integers(-150, 150, (4, 400, 1, 1)) + 0.5) * scale.astype("f8")).astype(dtype)
    weight = np.concatenate([ties, np.nextafter(ties, np.asarray(9, dtype)), 5 * random_weight(2, dtype)], 1)
    model = network(weight, scale, zero, opset=21)
    np.testing.assert_array_equal(quantized(weight, scale, zero, zero.dtype, 1, 0), integers(model))
